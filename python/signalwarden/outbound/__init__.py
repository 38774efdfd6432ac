"""Bounded HTTP for everything that we fetch: in time, in bytes, over a verified connection, to the named host alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from signalwarden.errors import FeedError
from signalwarden.files import read_regular, why
from signalwarden.outbound.targets import Fetched, Server, check_url

__all__ = ["Fetched", "Server", "bearer", "check_url", "fetch"]

MAX_TOKEN_BYTES: Final = 16 * 1024
"""A token file; what servers take as all the headers of a request."""

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 section 2.1."""


def fetch(
    url: str,
    *,
    timeout_s: float,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    method: str = "GET",
    body: bytes | None = None,
    server: Server | None = None,
) -> Fetched:
    """One request and its whole answer. Raises FeedError of one sentence, without what was sent or received.

    `ca_file` holds the only authorities that are trusted, in PEM; without it the system's are. `server` says instead
    who it must be, whatever its name."""
    # httpcore and HTTP/2, which it brings along: in memory only where something is fetched.
    from signalwarden.outbound import fetching

    return fetching.fetch(
        url, timeout_s=timeout_s, max_bytes=max_bytes, headers=headers, ca_file=ca_file, method=method, body=body,
        server=server,
    )  # fmt: skip


def bearer(token_file: Path) -> dict[str, str]:
    """The header with the token in this file, read anew each time: tokens are exchanged while we run.
    Raises FeedError, which never holds it."""
    try:
        token = read_regular(token_file, MAX_TOKEN_BYTES).strip()
    except OSError as error:
        raise FeedError(f"the token file `{token_file}` can't be read: {why(error)}") from error
    if not _TOKEN.fullmatch(token):
        raise FeedError(f"the token file `{token_file}` holds no bearer token")
    return {"authorization": f"Bearer {token.decode('ascii')}"}
