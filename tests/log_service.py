"""A real HTTP server on loopback that takes batches of records, as OPA's decision log service does, and answers as a test
says."""

from __future__ import annotations

import gzip
import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["LogService", "serving_logs"]


@dataclass
class LogService:
    """What came, batch by batch."""

    port: int = 0
    status: int = 200
    """With what it answers; what came with another status than 200 is not kept."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    max_events: int = 1 << 30
    """More at once are answered with 413."""
    max_bytes: int = 1 << 30
    """Of one body, unpacked: more are answered with 413."""
    asked: list[dict[str, str]] = field(default_factory=list)
    batches: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/logs"

    def events(self) -> list[dict[str, Any]]:
        return [event for batch in list(self.batches) for event in batch]

    def took(self, headers: dict[str, str], body: bytes) -> int:
        self.asked.append(headers)
        time.sleep(self.delay_s)
        if self.status != 200:
            return self.status
        text = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        if headers.get("content-type") == "application/json":
            events = orjson.loads(text)
        else:
            events = [orjson.loads(line) for line in text.splitlines()]
        if len(events) > self.max_events or len(text) > self.max_bytes:
            return 413
        self.batches.append(events)
        return 200


@contextmanager
def serving_logs(
    service: LogService | None = None, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[LogService]:
    """Until the block ends; `service` and `port`: one that comes back."""
    found = service or LogService()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = found.took({name.lower(): value for name, value in self.headers.items()}, body)
            try:
                self.send_response(status)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()
            except OSError:
                pass  # it has not waited

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
