"""An HTTP server of key sets and status lists for tests, that can be slow, wrong, huge or down."""

from __future__ import annotations

import http.server
import threading
import time
from types import TracebackType
from typing import Self


class KeyServer:
    """Serves `body`, in the way that `mode` says. Counts what it is asked."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.mode = "good"
        self.asked = 0
        self._released = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked += 1
                server._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, to: http.server.BaseHTTPRequestHandler) -> None:
        if self.mode == "down":
            to.connection.close()
            return
        if self.mode == "silent":
            self._released.wait(20)
            return
        to.send_response(503 if self.mode == "broken" else 302 if self.mode == "elsewhere" else 200)
        if self.mode == "elsewhere":
            to.send_header("location", f"{self.address}/other")
        if self.mode in ("huge", "dripping"):
            to.end_headers()
            self._pour(to)
            return
        body = b"<html>" if self.mode == "wrong" else self.body
        to.send_header("content-length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    def _pour(self, to: http.server.BaseHTTPRequestHandler) -> None:
        piece = b" " if self.mode == "dripping" else b" " * 65536
        ends = time.monotonic() + 20
        try:
            while time.monotonic() < ends and not self._released.is_set():
                to.wfile.write(piece)
                to.wfile.flush()
                if self.mode == "dripping":
                    time.sleep(0.05)
        except OSError:
            pass
