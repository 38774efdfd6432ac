"""Whom we ask and what comes of it: a URL taken apart, who its server must be, an answer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from signalwarden.errors import FeedError

__all__ = ["DEFAULT_PORTS", "LOOPBACK_NAME", "Fetched", "Server", "Target", "check_url"]

MAX_URL_BYTES: Final = 2048
"""As the longest SPIFFE ID; what servers take without being asked twice."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
LOOPBACK_NAME: Final = "localhost"

_GRAPHIC = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, whole. Its status is for the caller to judge; a redirect has already been refused."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """By name in lower case; several of one name are joined by a comma."""


@dataclass(frozen=True, slots=True)
class Server:
    """Who the server must be, where its host name says nothing: the name is not compared then."""

    authorities: str
    """In PEM; each is an end of the chain, whoever signed it."""
    accept: Callable[[bytes], None]
    """Judges the leaf, in DER, of a chain that is good. Raises FeedError; nothing of the request has been sent yet."""


def check_url(url: str) -> None:
    """Raises FeedError for a URL that `fetch` refuses."""
    Target.parse(url)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart once; nothing below reads the text again."""

    scheme: str
    host: str
    port: int
    path_and_query: str

    @staticmethod
    def parse(url: str) -> Target:
        if not _GRAPHIC.fullmatch(url) or len(url) > MAX_URL_BYTES or "\\" in url:
            raise FeedError(f"expected a URL of at most {MAX_URL_BYTES} ASCII characters without spaces")
        try:
            parts = urlsplit(url)
            port = parts.port
            host = parts.hostname or ""
            literal = ipaddress.IPv6Address(host) if ":" in host else None
        except ValueError:
            raise FeedError(_EXPECTED_URL) from None
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise FeedError("a URL holds no user or password, expected a token file")
        if parts.scheme not in DEFAULT_PORTS or "#" in url or port == 0:
            raise FeedError(_EXPECTED_URL)
        if literal is not None and literal.scope_id is not None:
            raise FeedError(_EXPECTED_URL)
        if literal is None and not _HOST.fullmatch(host):
            raise FeedError(_EXPECTED_URL)
        if parts.netloc.rfind("[") > 0:
            # `https://a%40[::1]`: some read the brackets alone, others the whole.
            raise FeedError(_EXPECTED_URL)
        if parts.scheme == "http" and not _is_loopback(host):
            raise FeedError(f"`http://{host}` is not on this machine, expected `https://`")
        query = f"?{parts.query}" if parts.query else ""
        return Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], (parts.path or "/") + query)

    @property
    def authority(self) -> str:
        """As it stands in `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Without path and query: those may hold what is secret."""
        return f"`{self.scheme}://{self.authority}`"


_EXPECTED_URL: Final = (
    "expected a URL such as `https://host.example/path`, or `http://` to a loopback address"
)


def _is_loopback(host: str) -> bool:
    if host == LOOPBACK_NAME:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
