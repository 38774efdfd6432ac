"""`outbound`: no server, however it answers or fails to, costs more than the time and the bytes that were given."""

from __future__ import annotations

import datetime as dt
import gzip
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signalwarden.errors import FeedError
from signalwarden.outbound import Fetched, bearer, check_url, fetch, fetching

TIMEOUT_S = 5.0
SHORT_S = 0.5
"""For servers that never finish."""
GRACE_S = 2.0
"""What a busy machine may add."""
TOKEN = "s3cr3t-t0ken"

Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """A server on a real socket that reads a request's head and then does what it likes; its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen()

    def one(opened: socket.socket) -> None:
        try:
            with opened, context.wrap_socket(opened, server_side=True) if context else opened as wrapped:
                wrapped.settimeout(TIMEOUT_S)
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = wrapped.recv(65_536)
                    if not piece:
                        return
                    head += piece
                answer(wrapped, head)
        except OSError:
            pass  # the client has gone, as most of these tests want

    def accept() -> None:
        while True:
            try:
                opened, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(opened,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def saying(text: bytes) -> Answer:
    """A server that answers with these bytes."""
    return lambda opened, _head: opened.sendall(text)


def good(body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def get(port: int, *, max_bytes: int = 1_000, timeout_s: float = TIMEOUT_S, path: str = "/f?q=1") -> Fetched:
    return fetch(f"http://127.0.0.1:{port}{path}", timeout_s=timeout_s, max_bytes=max_bytes)


def refused(port: int, text: str, **given: float) -> None:
    started = time.monotonic()
    with pytest.raises(FeedError, match=text) as caught:
        get(port, timeout_s=given.get("timeout_s", TIMEOUT_S))
    assert time.monotonic() - started < given.get("timeout_s", TIMEOUT_S) + GRACE_S
    assert "\n" not in str(caught.value)


# ---- what is fetched


def test_an_answer_comes_whole_with_status_and_headers() -> None:
    heads: list[bytes] = []

    def answer(opened: socket.socket, head: bytes) -> None:
        heads.append(head)
        opened.sendall(good(b"fact", "ETag: W/1\r\nX-A: 1\r\nx-a: 2\r\n"))

    with serving(answer) as port:
        found = get(port)
    assert (found.status, found.body) == (200, b"fact")
    assert (found.headers["etag"], found.headers["x-a"]) == ("W/1", "1, 2")
    assert heads[0].startswith(b"GET /f?q=1 HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{port}\r\n".encode() in heads[0]
    assert b"accept-encoding: identity\r\n" in heads[0]


def test_headers_and_a_body_are_sent() -> None:
    seen: list[bytes] = []

    def answer(opened: socket.socket, head: bytes) -> None:
        while not head.endswith(b"{}"):
            head += opened.recv(100)
        seen.append(head)
        opened.sendall(good(b""))

    with serving(answer) as port:
        fetch(
            f"http://localhost:{port}",
            timeout_s=TIMEOUT_S,
            max_bytes=10,
            headers={"Authorization": f"Bearer {TOKEN}"},
            method="POST",
            body=b"{}",
        )
    assert seen[0].startswith(b"POST / HTTP/1.1\r\n")
    assert f"authorization: Bearer {TOKEN}\r\n".encode() in seen[0]
    assert b"Content-Length: 2\r\n" in seen[0]


@pytest.mark.parametrize("status", [204, 304, 404, 500])
def test_a_status_is_for_the_caller_to_judge(status: int) -> None:
    with serving(saying(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())) as port:
        assert get(port).status == status


def test_an_answer_in_chunks_is_put_together() -> None:
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    with serving(saying(text)) as port:
        assert get(port).body == b"abc"


def test_an_ipv6_address_is_reached() -> None:
    heads: list[bytes] = []

    def answer(opened: socket.socket, head: bytes) -> None:
        heads.append(head)
        opened.sendall(good(b"six"))

    with serving(answer, host="::1") as port:
        found = fetch(f"http://[::1]:{port}/", timeout_s=TIMEOUT_S, max_bytes=10)
    assert found.body == b"six"
    assert f"host: [::1]:{port}\r\n".encode() in heads[0]


def test_localhost_is_tried_at_both_its_addresses() -> None:
    with serving(saying(good(b"six")), host="::1") as port:
        assert fetch(f"http://localhost:{port}/", timeout_s=TIMEOUT_S, max_bytes=10).body == b"six"


def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(saying(good(b"fact"))) as port:
        assert get(port).body == b"fact"


# ---- bounds


def test_a_body_that_drips_ends_with_the_deadline() -> None:
    def answer(opened: socket.socket, _head: bytes) -> None:
        opened.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
        for _ in range(900):
            opened.sendall(b"x")
            time.sleep(0.02)

    with serving(answer) as port:
        refused(port, "no full answer within 0.5 s", timeout_s=SHORT_S)


@pytest.mark.parametrize("piece", [b"H", b"HTTP/1.1 103 Early\r\n\r\n"])
def test_a_head_that_drips_ends_with_the_deadline(piece: bytes) -> None:
    def answer(opened: socket.socket, _head: bytes) -> None:
        while True:
            opened.sendall(piece)
            time.sleep(0.02)

    with serving(answer) as port:
        refused(port, "no full answer within|no HTTP/1.1", timeout_s=SHORT_S)


def test_silence_ends_with_the_deadline() -> None:
    with serving(lambda _opened, _head: time.sleep(TIMEOUT_S)) as port:
        refused(port, "no full answer within 0.5 s", timeout_s=SHORT_S)


def test_headers_that_never_end_are_refused_before_they_fill_memory() -> None:
    sent = 0

    def answer(opened: socket.socket, _head: bytes) -> None:
        nonlocal sent
        opened.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            opened.sendall(b"x-more: " + b"y" * 8_000 + b"\r\n")
            sent += 8_000

    with serving(answer) as port:
        refused(port, "too long")
    assert sent < 50_000_000  # what the kernel's buffers may take beside our 100 kB


@pytest.mark.parametrize(
    "head",
    ["Content-Length: 1001", "Content-Length: 99999999999999999999999999", "X-No-Length: 1"],
)
def test_a_body_above_the_bound_is_refused(head: str) -> None:
    with serving(saying(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + b"x" * 1_001)) as port:
        refused(port, "more than 1000 bytes|no HTTP/1.1")


def test_a_body_without_end_is_refused_at_the_bound() -> None:
    def answer(opened: socket.socket, _head: bytes) -> None:
        opened.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            opened.sendall(b"3e8\r\n" + b"x" * 1_000 + b"\r\n")

    with serving(answer) as port:
        refused(port, "more than 1000 bytes")


def test_a_compressed_bomb_is_never_unpacked() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    text = good(bomb, "Content-Encoding: gzip\r\n")
    with serving(saying(text)) as port, pytest.raises(FeedError, match="compressed"):
        get(port, max_bytes=1_000_000)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    followed: list[bytes] = []
    with serving(lambda _opened, head: followed.append(head)) as other:
        text = f"HTTP/1.1 {status} x\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n"
        with serving(saying(text.encode())) as port:
            refused(port, f"a redirect \\({status}\\), which is not followed")
    assert followed == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_is_refused(text: bytes) -> None:
    with serving(saying(text)) as port:
        refused(port, "no HTTP/1.1|status 101")


def test_a_refused_connection_is_one_sentence() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        refused(port, f"`http://127.0.0.1:{port}` can't be reached: connection refused")


def test_a_name_that_hangs_is_left_behind_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        release.wait(TIMEOUT_S)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(fetching, "_lookups", threading.BoundedSemaphore(2))
    try:
        for text in ("no full answer within", "no full answer within", "lookups of names already hang"):
            with pytest.raises(FeedError, match=text):
                fetch("https://feed.example/", timeout_s=0.1, max_bytes=10)
    finally:
        release.set()


def test_a_name_that_nobody_has_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(FeedError, match=r"`https://feed\.example` has no address: name or service not known"):
        fetch("https://feed.example/", timeout_s=TIMEOUT_S, max_bytes=10)


# ---- secrets


def test_no_error_repeats_a_token_or_what_was_read() -> None:
    with serving(saying(b"HTTP/1.1 200 OK\r\nbad header hidden-body\r\n\r\nhidden-body")) as port:
        for headers in ({"authorization": f"Bearer {TOKEN}\r\nx: y"}, {"authorization": f"é{TOKEN}"}, {}):
            with pytest.raises(FeedError) as caught:
                fetch(
                    f"http://127.0.0.1:{port}/{TOKEN}?token={TOKEN}",
                    timeout_s=TIMEOUT_S,
                    max_bytes=10,
                    headers=headers,
                )
            assert TOKEN not in str(caught.value)
            assert "hidden" not in str(caught.value)


def test_a_token_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for token in (TOKEN, "an.other-t0ken=="):
        file.write_text(f"{token}\n")
        assert bearer(file) == {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two words", b"a\r\nx: y", b"\xff", b"x" * 20_000])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FeedError, match=r"the token file `.*token`") as caught:
        bearer(file)
    assert "two" not in str(caught.value)


# ---- URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://feed.example/a?b=c",
        "https://[2001:db8::1]:8443/",
        "http://127.9.9.9/",
        "http://[::1]/",
        "http://LOCALHOST:80",
    ],
)
def test_these_are_urls(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "feed.example",
        "ftp://feed.example/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user@feed.example/",
        f"https://user:{TOKEN}@feed.example/",
        "https://@feed.example/",
        "https://feed.example/#part",
        "https://feed.example:0/",
        "https://feed.example:65536/",
        "https://feed.example:port/",
        "https://feed.example/a b",
        "https://feed.example/\n",
        "https://féed.example/",
        "https://feed.example\\@evil.example/",
        "https://[::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[::1/",
        "https://a%40[::1]",
        "https://[nonsense]/",
        "https://feed_example!/",
        "https://" + "a" * 3_000,
        "http://feed.example/",
        "http://127.0.0.1.evil.example/",
        "http://localhost.evil.example/",
        "http://127.1/",
        "http://2130706433/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
def test_these_are_refused_before_anything_is_opened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket, "socket", opened)
    monkeypatch.setattr(socket, "getaddrinfo", opened)
    with pytest.raises(FeedError) as caught:
        fetch(url, timeout_s=TIMEOUT_S, max_bytes=10)
    assert TOKEN not in str(caught.value)


# ---- TLS


@dataclass(frozen=True)
class Authority:
    """A CA with one server certificate, as files and as a server's context."""

    ca_file: Path
    context: ssl.SSLContext


def authority(folder: Path, *names: str, days: int = 1) -> Authority:
    """Made anew for each test; the certificate is good for these names and until so many days from now."""
    folder.mkdir(parents=True)
    now = dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    start = min(now, end) - dt.timedelta(days=2)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, folder.name)])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(max(end, now) if subject == ca_name else end)
        )

    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        for name in names
    ]
    leaf = (
        builder(x509.Name([]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "leaf.pem").write_bytes(
        leaf.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem")
    return Authority(folder / "ca.pem", context)


def secure(port: int, ca_file: Path | None, host: str = "localhost", timeout_s: float = TIMEOUT_S) -> Fetched:
    return fetch(f"https://{host}:{port}/", timeout_s=timeout_s, max_bytes=1_000, ca_file=ca_file)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_verified_server_is_read(tmp_path: Path, host: str) -> None:
    ours = authority(tmp_path / "ours", host)
    with serving(saying(good(b"fact")), ours.context) as port:
        assert secure(port, ours.ca_file, host).body == b"fact"


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    ours, other = authority(tmp_path / "ours", "localhost"), authority(tmp_path / "other", "localhost")
    with serving(saying(good(b"fact")), ours.context) as port:
        for trusted in (other.ca_file, None):
            with pytest.raises(FeedError, match=f"the certificate of `https://localhost:{port}` is not good"):
                secure(port, trusted)


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours", "other.example")
    with serving(saying(good(b"fact")), ours.context) as port:
        with pytest.raises(FeedError, match="hostname mismatch"):
            secure(port, ours.ca_file)
        with pytest.raises(FeedError, match="ip address mismatch"):
            secure(port, ours.ca_file, "127.0.0.1")


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours", "localhost", days=-1)
    with (
        serving(saying(good(b"fact")), ours.context) as port,
        pytest.raises(FeedError, match="is not good: certificate has expired"),
    ):
        secure(port, ours.ca_file)


def test_an_answer_cut_off_under_tls_is_not_a_short_answer(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours", "localhost")

    def answer(opened: socket.socket, _head: bytes) -> None:
        opened.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")
        os.close(opened.detach())

    with serving(answer, ours.context) as port, pytest.raises(FeedError, match="no TLS with"):
        secure(port, ours.ca_file)


def test_a_handshake_that_never_comes_ends_with_the_deadline(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours", "localhost")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(FeedError, match=r"no full answer within 0\.5 s"):
            secure(silent.getsockname()[1], ours.ca_file, timeout_s=SHORT_S)
        assert time.monotonic() - started < SHORT_S + GRACE_S


def test_plain_text_on_a_port_of_tls_is_one_sentence(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours", "localhost")
    with serving(saying(good(b"fact"))) as port, pytest.raises(FeedError, match="`https://localhost"):
        secure(port, ours.ca_file, timeout_s=SHORT_S)


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nnonsense\n"])
def test_a_bad_ca_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(FeedError, match=r"the CA file `.*ca\.pem`"):
        secure(1, ca_file)


def test_a_pipe_for_a_ca_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.pem")
    with pytest.raises(FeedError, match="expected a regular file"):
        secure(1, tmp_path / "ca.pem")
