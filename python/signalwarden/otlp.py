"""How a collector of OpenTelemetry is reached (OTLP over gRPC): what the settings say of it, and from that a channel
and the headers of a call. What is sent, and what becomes of it when nobody answers, is its senders' business.

Files of certificates and headers are read when they are needed, so that they may be exchanged while we run. Nothing
comes from the environment: neither the variables of OpenTelemetry's own exporters nor a proxy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema

from signalwarden.errors import FeedError, OtlpError
from signalwarden.files import read_regular, why
from signalwarden.outbound import check_url
from signalwarden.slips import Slip
from signalwarden.values import Duration, FilePath, Strict, bad_value, span_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import grpc

__all__ = ["MAX_HEADERS", "Collector", "OtlpSettings", "otlp_checks", "read_headers"]

MAX_FILE_BYTES: Final = 1024 * 1024
"""As for the certificates of our doors."""
MAX_HEADERS_BYTES: Final = 8 * 1024
"""gRPC servers take 8 to 16 KiB of headers; a file of them is a token or two."""
MAX_HEADERS: Final = 16
DEFAULT_PORT: Final = 4317
"""OTLP over gRPC, as registered with IANA."""
LONGEST_S: Final = span_s("1m")
"""What takes longer than that is not answered any more."""
MAX_SENT_BYTES: Final = 16 * 1024 * 1024
MIN_RECONNECT_MS: Final = 250
MAX_RECONNECT_MS: Final = 5_000
"""A collector that is back is found within this time; gRPC's own two minutes would lose what came meanwhile."""

_NAME: Final = re.compile(r"[a-z0-9_.-]{1,128}")
"""A header's name as gRPC takes it. Those that end in `-bin` hold bytes, which a file of text can't."""
_RESERVED: Final = ("grpc-", "x-signalwarden-")


def _endpoint(text: str) -> str:
    try:
        check_url(text)
    except FeedError as error:
        raise bad_value(str(error).replace("/path`", f":{DEFAULT_PORT}`")) from error
    parts = urlsplit(text)
    if parts.path not in ("", "/") or parts.query:
        raise bad_value("expected an address without a path: OTLP over gRPC has none")
    return text


def _waiting(seconds: float) -> float:
    if seconds > LONGEST_S:
        raise bad_value("expected a span of a minute at most")
    return seconds


Endpoint = Annotated[
    str, AfterValidator(_endpoint), WithJsonSchema({"type": "string", "pattern": "^https?://[^/?#]+/?$"})
]


class OtlpSettings(Strict):
    """A collector, and how it is known."""

    endpoint: Endpoint = Field(
        description=f"such as `https://otel.example:{DEFAULT_PORT}`, or `http://` to a loopback address"
    )
    ca_file: FilePath | None = Field(
        default=None, description="PEM file of the only authorities trusted for it; else the system's"
    )
    cert: FilePath | None = Field(default=None, description="our certificate, where it asks for one")
    key: FilePath | None = Field(default=None, description="its private key")
    headers_file: FilePath | None = Field(
        default=None, description="headers of each call, such as a token: a line `name: value` for each"
    )
    timeout: Annotated[Duration, AfterValidator(_waiting)] = Field(
        default=span_s("5s"),
        description="how long one call may take",
        json_schema_extra={"default": "5s"},
    )


def otlp_checks(loc: tuple[str | int, ...], raw: Mapping[str, Any]) -> Iterator[Slip]:
    """Every mistake of a collector at this place of the settings that takes two keys to see."""
    for one, other in (("cert", "key"), ("key", "cert")):
        if raw.get(one) is not None and raw.get(other) is None:
            yield Slip((*loc, other), "missing_key", f"missing, `{one}` needs it")
    plain = isinstance(raw.get("endpoint"), str) and raw["endpoint"].startswith("http://")
    for name in ("ca_file", "cert", "key"):
        if plain and raw.get(name) is not None:
            yield Slip((*loc, name), "bad_value", "there is no TLS with an endpoint of `http://`")


@dataclass(frozen=True, slots=True)
class Collector:
    """A collector of the settings; paths are relative to the directory."""

    settings: OtlpSettings
    root: Path

    @property
    def timeout_s(self) -> float:
        """For one call."""
        return self.settings.timeout

    @property
    def target(self) -> str:
        """`host:port`, as gRPC and sentences write it."""
        parts = urlsplit(self.settings.endpoint)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{parts.port or DEFAULT_PORT}"

    def channel(self) -> grpc.Channel:
        """A channel of its own, not yet connected; close it. After a failed call it is to be made anew, with the files
        as they are then. Raises OtlpError for files that can't be read."""
        import grpc

        options: list[tuple[str, Any]] = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_send_message_length", MAX_SENT_BYTES),
            ("grpc.min_reconnect_backoff_ms", MIN_RECONNECT_MS),
            ("grpc.initial_reconnect_backoff_ms", MIN_RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
            ("grpc.use_local_subchannel_pool", 1),  # else credentials of an older channel go on
        ]
        if self.settings.endpoint.startswith("http://"):
            return grpc.insecure_channel(self.target, options=options)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self._content(self.settings.ca_file),
            private_key=self._content(self.settings.key),
            certificate_chain=self._content(self.settings.cert),
        )
        return grpc.secure_channel(self.target, credentials, options=options)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of a call, as the file says now. Raises OtlpError, which never holds a value."""
        name = self.settings.headers_file
        if name is None:
            return ()
        return read_headers(self.root / name)

    def _content(self, name: str | None) -> bytes | None:
        if name is None:
            return None
        path = self.root / name
        try:
            return read_regular(path, MAX_FILE_BYTES)
        except OSError as error:
            raise OtlpError(f"`{path}` can't be read: {why(error)}") from error


def read_headers(path: Path) -> tuple[tuple[str, str], ...]:
    """The headers in a file, a line `name: value` for each. Raises OtlpError, which never holds a value."""
    try:
        text = read_regular(path, MAX_HEADERS_BYTES).decode("ascii")
    except OSError as error:
        raise OtlpError(f"the headers file `{path}` can't be read: {why(error)}") from error
    except UnicodeDecodeError:
        raise OtlpError(f"the headers file `{path}` holds more than ASCII") from None  # it may be a token
    lines = [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1)]
    found = tuple(_header(path, at, line) for at, line in lines if line and not line.startswith("#"))
    if len(found) > MAX_HEADERS:
        raise OtlpError(f"the headers file `{path}` holds more than {MAX_HEADERS} headers")
    return found


def _header(path: Path, at: int, line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    name, value = name.strip().lower(), value.strip()
    good = _NAME.fullmatch(name) is not None and not name.endswith("-bin") and value.isprintable()
    if not colon or not value or not good:
        raise OtlpError(f"`{path}`, line {at}: expected `name: value`")
    if name.startswith(_RESERVED):
        raise OtlpError(f"`{path}`, line {at}: `{name}` has a meaning of its own, expected another header")
    return name, value
