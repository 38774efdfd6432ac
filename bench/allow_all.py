"""The measure of the front door: a bare grpcio server whose handler gets bytes and answers "allow" without looking.

python bench/allow_all.py THREADS      prints its port, serves until it is ended
"""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import grpc

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
ALLOW: Final = b"\x0a\x00\x1a\x00"
"""A CheckResponse with an empty status, which is OK, and an empty ok_response."""

if TYPE_CHECKING:
    _Handler = grpc.GenericRpcHandler[Any, Any]
else:
    _Handler = grpc.GenericRpcHandler


class _AllowAll(_Handler):
    def __init__(self) -> None:
        def allow(_request: bytes, _context: grpc.ServicerContext) -> bytes:
            return ALLOW

        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(allow)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handler if details.method == METHOD else None


def main() -> None:
    """Serves until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server = grpc.server(ThreadPoolExecutor(max_workers=int(sys.argv[1])))
    server.add_generic_rpc_handlers((_AllowAll(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    ended.wait()
    server.stop(1.0).wait(2.0)


if __name__ == "__main__":
    main()
