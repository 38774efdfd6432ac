"""Connections that are held, flooded or not who they should be, at each front door of a real server: the cases of
tests/vectors/h2/abuse.json that test_h2_abuse.py leaves to this file.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from typing import Final

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from signalwarden.server import CHECK_METHOD
from tests import asking, fronts, log_stage
from tests.authorities import Authority, Issued
from tests.conftest import Eventually
from tests.e2e.test_h2_abuse import CASES, SHARE_MORE, expect_outcome, expect_right
from tests.h2_attacks import ATTACKS, CALL
from tests.h2_client import DATA, END_HEADERS, HEADERS, PREFACE, Client, frame, grpc_message, settings
from tests.log_stage import Server
from tests.probing import ALLOWED, PATIENCE_S, memory_kb, open_files, probing

SILENT: Final = 900
DRIPPING: Final = 100
"""With them, those of the vector: a thousand."""
HALF: Final = 10
WAIT_S: Final = 17.0
"""Longer than any limit of either front on handshakes and on messages."""
DRIP_S: Final = 1.0
FIRST_LOOK_S: Final = 0.1
STARVED_S: Final = 2.0
ROOM: Final = 200
"""Descriptors that the server still has when the flood comes."""
FLOOD: Final = 1_000
"""Connections: five times that room. It is the limit that counts, not the number."""
RECOVER_S: Final = 10.0
HOUR: Final = timedelta(hours=1)
GREETED: Final = PREFACE + settings()
HALF_A_CALL: Final = (
    GREETED + frame(HEADERS, END_HEADERS, 1, CALL) + frame(DATA, 0, 1, grpc_message(ALLOWED)[:10])
)
ENVOY: Final = "spiffe://prod.example/envoy"
STRANGER: Final = "spiffe://prod.example/stranger"
WARDEN: Final = "spiffe://prod.example/signalwarden"


@pytest.fixture(scope="module", autouse=True)
def many_descriptors() -> Iterator[None]:
    """For this process, and for the servers that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * (SILENT + DRIPPING) + 512
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed, and {hard} are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def server(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp(f"held-{front}") / "conf"
    log_stage.directory(root, log="ring_bytes: 4194304")
    with log_stage.serving(fronts.choose(root, front)) as running:
        yield running


def ask(address: str, within_s: float = PATIENCE_S) -> str:
    """What a new client is told."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes)
        return asking.reason_of(bytes(call(ALLOWED, timeout=within_s, wait_for_ready=True)))


# ---- held -------------------------------------------------------------------------------------------------


class Held:
    """Connections of one kind that a client never comes to an end with."""

    def __init__(self, address: str, count: int, begin: bytes, drip: Iterator[bytes] | None = None) -> None:
        self.clients = [Client(address, greet=False, polite=False) for _ in range(count)]
        self._drip = drip
        for client in self.clients:
            client.send(begin)

    def drip(self) -> None:
        """One more byte or so from each."""
        if self._drip is not None and (part := next(self._drip, b"")):
            for client in self.clients:
                client.send(part)

    def outcome(self) -> str:
        """Whether the server has ended them: all, or none; anything between is said."""
        open_still = self.clients
        for patience_s in (0.002, 0.02, 0.5):
            if len(open_still) < len(self.clients) or patience_s < FIRST_LOOK_S:
                open_still = [client for client in open_still if not client.ended(patience_s)]
        if len(open_still) in (0, len(self.clients)):
            return "held" if open_still else "closed"
        return f"{len(open_still)} of {len(self.clients)} held"

    def close(self) -> None:
        for client in self.clients:
            client.close()


def one_by_one(text: bytes) -> Iterator[bytes]:
    return (text[at : at + 1] for at in range(len(text)))


def starves(front: str) -> bool:
    """Whether calls whose message does not come keep others from being answered: where they do, that is a test of its own."""
    return "stops all others" in CASES["slow headers / slow body"]["fronts"][front][0]


def test_a_front_that_calls_without_a_message_stop_goes_on_when_they_are_gone(
    server: Server, front: str
) -> None:
    if not starves(front):
        pytest.skip("they stop nobody here: they are among what comes to nothing")
    held = Held(server.check, HALF, HALF_A_CALL)
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        ask(server.check, within_s=STARVED_S)
    held.close()
    assert ask(server.check) == "allowed"


# ---- flooded ----------------------------------------------------------------------------------------------


def test_after_a_flood_of_connections_new_clients_are_served(server: Server, front: str) -> None:
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with probing(server.check) as told, ExitStack() as stack:
        limit = open_files(pid) + ROOM
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        for _ in range(FLOOD):
            flooding = stack.enter_context(socket.socket())
            flooding.setblocking(False)
            host, _, port = server.check.rpartition(":")
            with contextlib.suppress(BlockingIOError):
                flooding.connect((host, int(port)))
        time.sleep(1.0)
        full = open_files(pid)
    # Who was connected before the flood was served all through it.
    expect_right(told)
    assert limit - 2 <= full <= limit
    assert ask(server.check) == "allowed"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    expect_outcome("connection flood", front, "accepts again")


# ---- TLS --------------------------------------------------------------------------------------------------


class Tls:
    """A server with mutual TLS at its check door, and the authority behind it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("prod.example", extra=())
        self.root = folder / "conf"
        self._folder = folder
        tls = "tls: {cert: tls/cert.pem, key: tls/key.pem, client_ca: tls/ca.pem, doors: [check], "
        rest = f'{tls}check_clients: ["{ENVOY}"]}}\n'
        log_stage.directory(self.root, log="ring_bytes: 4194304", rest=rest)
        ours = self.authority.issue(WARDEN, dns=("localhost",))
        (self.root / "tls").mkdir()
        for name, content in (
            ("cert.pem", ours.chain_pem),
            ("key.pem", ours.key_pem),
            ("ca.pem", pem_of(self.authority)),
        ):
            (self.root / "tls" / name).write_bytes(content)

    def context(self, issued: Issued | None) -> ssl.SSLContext:
        """A client's, with this certificate or none."""
        made = ssl.create_default_context(cadata=pem_of(self.authority).decode())
        made.set_alpn_protocols(["h2"])
        if issued is not None:
            path = self._folder / f"{id(issued)}.pem"
            path.write_bytes(issued.chain_pem + issued.key_pem)
            made.load_cert_chain(path)
        return made

    def ask(self, address: str, issued: Issued | None) -> str:
        """What a client with this certificate is told, over frames: nothing is tried again."""
        try:
            with Client(address, tls=self.context(issued)) as client:
                reply = client.call(grpc_message(ALLOWED))
        except (ssl.SSLError, OSError):
            return "no handshake"
        if reply.outcome == "status 0":
            return asking.reason_of(reply.message)
        return "no handshake" if reply.outcome == "closed" else reply.outcome


def pem_of(authority: Authority) -> bytes:
    return authority.cert.public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def secured(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tls, Server]]:
    tls = Tls(tmp_path_factory.mktemp(f"tls-{front}"))
    with log_stage.serving(fronts.choose(tls.root, front)) as running:
        yield tls, running


def first_words() -> bytes:
    """A ClientHello."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def test_whoever_has_the_wrong_certificate_is_not_served(secured: tuple[Tls, Server], front: str) -> None:
    tls, server = secured
    other = Authority("prod.example")
    told = {
        "none": tls.ask(server.check, None),
        "another authority": tls.ask(server.check, other.issue(ENVOY)),
        "expired": tls.ask(server.check, tls.authority.issue(ENVOY, begins=-2 * HOUR, life=HOUR)),
        "not yet": tls.ask(server.check, tls.authority.issue(ENVOY, begins=HOUR, life=HOUR)),
        "another id": tls.ask(server.check, tls.authority.issue(STRANGER)),
        "two ids": tls.ask(server.check, tls.authority.issue(ENVOY, STRANGER)),
        "no id": tls.ask(server.check, tls.authority.issue(dns=("localhost",))),
    }
    assert tls.ask(server.check, tls.authority.issue(ENVOY)) == "allowed"
    print(f"{front}: {told}")
    assert "allowed" not in told.values()
    for name, what in told.items():
        expect_outcome("mTLS wrong client cert", front, f"{name}: {what}")


def test_what_comes_to_nothing_is_ended_and_holds_nobody_up(
    server: Server, secured: tuple[Tls, Server], front: str, eventually: Eventually
) -> None:
    tls, other = secured
    pid, envoy = server.process.pid, tls.authority.issue(ENVOY)
    before_files, hello = open_files(pid), first_words()
    with ExitStack() as stack, probing(server.check) as told:
        held = {
            "silent": Held(server.check, SILENT, b""),
            "by the byte": Held(server.check, DRIPPING, b"PRI", one_by_one(PREFACE[3:])),
            "headers": Held(server.check, HALF, GREETED + frame(HEADERS, 0, 1, CALL)),
            "whole hello": Held(other.check, HALF, hello),
            "half a hello": Held(other.check, HALF, hello[: len(hello) // 2]),
            "no hello": Held(other.check, HALF, b""),
            "no TLS": Held(other.check, HALF, GREETED),
        }
        if not starves(front):
            held["body"] = Held(server.check, HALF, HALF_A_CALL, repeat(frame(DATA, 0, 1, b"x")))
        for kind in held.values():
            stack.callback(kind.close)
        held_kb = memory_kb(pid)
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            assert ask(server.check) == tls.ask(other.check, envoy) == "allowed"
            for kind in held.values():
                kind.drip()
            time.sleep(DRIP_S)
        body = held.pop("body", None)
        outcomes = {name: kind.outcome() for name, kind in held.items()}
        if body is not None:
            outcomes["body"] = " or ".join({client.reply(1).outcome for client in body.clients})
    print(f"{front}: {outcomes}, {held_kb} kB while held")
    expect_right(told)
    eventually(lambda: open_files(pid) <= before_files + 3, RECOVER_S)
    assert memory_kb(pid) <= held_kb * SHARE_MORE[front]
    expect_outcome(
        "slow preface", front, f"silent {outcomes['silent']}, by the byte {outcomes['by the byte']}"
    )
    if starves(front):
        outcomes["body"] = "stops all others"
    expect_outcome(
        "slow headers / slow body", front, f"headers {outcomes['headers']}, body {outcomes['body']}"
    )
    for name in ("whole hello", "half a hello", "no hello", "no TLS"):
        expect_outcome("TLS mid-handshake hold", front, f"{name} {outcomes[name]}")


def test_every_attack_is_made() -> None:
    tried = {*ATTACKS, "slow preface", "slow headers / slow body", "connection flood"}
    tried |= {"TLS mid-handshake hold", "mTLS wrong client cert"}
    for vectors in asking.vectors("h2/abuse.json"):
        assert {case["name"] for case in vectors["attacks"]} <= tried
    assert {*CASES} == tried
    assert all({*case["fronts"]} == {*fronts.FRONTS} for case in CASES.values())
