"""Certificates rotated under load: a server whose certificate changes every second, callers that ask all the while over
mutual TLS. Some keep their connection, others make a new one again and again, each with the newest certificate. A
request without an answer is lost, and none may be.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc

from bench import directory, stage
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address
from signalwarden.demo_stage import Authority, Credential
from signalwarden.server import CHECK_METHOD

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Rotation", "run"]

ENVOY: Final = "spiffe://prod.example/ns/edge/sa/envoy"
SERVER: Final = "spiffe://prod.example/ns/signals/sa/signalwarden"
EVERY_S: Final = 1.0
KEEPERS, DIALLERS = 2, 2
DIAL_EVERY_S: Final = 0.25
PAUSE_S: Final = 0.002
TIMEOUT_S: Final = 10.0


@dataclass
class Rotation:
    """What came of it."""

    seconds: float
    rotations: int = 0
    calls: int = 0
    dials: int = 0
    lost: list[str] = field(default_factory=list)
    serials: set[int] = field(default_factory=set)
    """Of the certificates that the server showed: if they don't change, nothing was rotated."""
    waits: list[float] = field(default_factory=list)


class _Files:
    """The server's certificate and key, replaced in place, and the newest of a caller."""

    def __init__(self, where: Path) -> None:
        self._authority = Authority(where / "ca", "prod.example")
        self.bundle = self._authority.bundle
        self.cert, self.key = where / "server.pem", where / "server.key"
        self.caller: Credential
        self.rotate()

    def rotate(self) -> None:
        """One file after the other, as agents do: between the two they do not belong together."""
        made = self._authority.issue(SERVER, dns=("localhost",))
        for source, target in ((made.certificate, self.cert), (made.key, self.key)):
            fresh = target.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_bytes(source.read_bytes())
            fresh.replace(target)
        self.caller = self._authority.issue(ENVOY)

    def channel(self, port: int) -> grpc.Channel:
        """A connection of its own, with the newest certificate."""
        caller = self.caller
        trusted = grpc.ssl_channel_credentials(
            self.bundle.read_bytes(), caller.key.read_bytes(), caller.certificate.read_bytes()
        )
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        return grpc.secure_channel(f"localhost:{port}", trusted, options)

    def shown(self, port: int) -> int:
        """Serial number of the certificate that the server shows now."""
        from cryptography import x509

        context = ssl.create_default_context(cafile=str(self.bundle))
        context.load_cert_chain(self.caller.certificate, self.caller.key)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"").serial_number


def run(where: Path, core: int | None, seconds: float) -> Rotation:
    """Serves, asks, rotates. Retries of gRPC are off, so that no lost request is hidden."""
    files = _Files(where)
    made = directory.make(where / "directory")
    settings = made.directory / "signalwarden.yaml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(
        f"{text}tls:\n  cert: {files.cert}\n  key: {files.key}\n  client_ca: {files.bundle}\n"
        f'  doors: [check]\n  check_clients: ["{ENVOY}"]\n',
        encoding="utf-8",
    )
    figures = Rotation(seconds)
    end = threading.Event()
    request = directory.allowed_request()
    with stage.served(made, core) as server:
        with AdminClient(Address("127.0.0.1", server.admin_port), made.publisher_token) as admin:
            admin.publish(directory.signals_body())
        callers = KEEPERS + DIALLERS
        with ThreadPoolExecutor(callers) as pool:
            asked = [
                pool.submit(_ask, files, server.port, request, end, figures, redial=number >= KEEPERS)
                for number in range(callers)
            ]
            figures.serials.add(files.shown(server.port))
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(EVERY_S)
                files.rotate()
                figures.rotations += 1
                figures.serials.add(files.shown(server.port))
            end.set()
            for done in asked:
                done.result(TIMEOUT_S * 2)
    return figures


_COUNTING = threading.Lock()


def _ask(
    files: _Files, port: int, request: bytes, end: threading.Event, figures: Rotation, *, redial: bool
) -> None:
    while not end.is_set():
        with files.channel(port) as channel:
            call = channel.unary_unary(CHECK_METHOD, bytes, bytes)
            begun = time.monotonic()
            waits: list[float] = []
            lost: list[str] = []
            while not end.is_set() and not (redial and time.monotonic() - begun > DIAL_EVERY_S):
                asked = time.perf_counter()
                try:
                    answer = bytes(call(request, timeout=TIMEOUT_S))
                    waits.append(1e3 * (time.perf_counter() - asked))
                    if b"allowed" not in answer:
                        lost.append("an answer that is not `allowed`")
                except grpc.RpcError as error:
                    lost.append(str(error.code()))
                time.sleep(PAUSE_S)
        with _COUNTING:
            figures.dials += 1
            figures.calls += len(waits) + len(lost)
            figures.waits += waits
            figures.lost += lost
