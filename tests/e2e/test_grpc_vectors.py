"""What a gRPC server owes its callers, at each front door of a real server: the cases of tests/vectors/grpc/expectations.json,
each by its id. The file says in a few words what each front answers; docs/http2.md shows that.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from grpc_health.v1 import health_pb2

from tests import asking, fronts, log_stage
from tests.conftest import Eventually
from tests.h2_client import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    Client,
    Header,
    Reply,
    call_headers,
    frame,
    grpc_message,
    plain_block,
)
from tests.log_stage import Server
from tests.probing import ALLOWED, PER_SECOND, memory_kb, probing, threads

HEALTH: Final = "/grpc.health.v1.Health"
SERVICE: Final = "envoy.service.auth.v3.Authorization"
REFLECTION: Final = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
LIMIT: Final = 4 * 1024 * 1024
"""Of a message, in bytes: MAX_REQUEST_BYTES of either front."""
NOISE_SEED: Final = 20261129
WATCHES: Final = 1_000
CONNECTIONS: Final = 20
THREADS_MORE: Final = 8
SHARE_MORE: Final = 1.10
SETTLE_S: Final = 15.0
BURST: Final = 200
"""Whole calls in the moment of a stop."""
DRAIN_S: Final = 0.5
"""Of load before and of patience after a SIGTERM."""

VECTORS: Final[dict[str, Any]] = asking.vectors("grpc/expectations.json")[0]
CASES: Final[dict[str, dict[str, Any]]] = {case["id"]: case for case in VECTORS["cases"]}
STATUS: Final = {value: name for name, value in health_pb2.HealthCheckResponse.ServingStatus.items()}


@pytest.fixture(scope="module")
def server(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp(f"grpc-{front}") / "conf"
    log_stage.directory(root, log="ring_bytes: 4194304")
    with log_stage.serving(fronts.choose(root, front)) as running:
        yield running


def asked_of(service: str) -> bytes:
    return grpc_message(health_pb2.HealthCheckRequest(service=service).SerializeToString())


def state_in(message: bytes) -> str:
    return str(STATUS[health_pb2.HealthCheckResponse.FromString(message).status])


# ---- the cases --------------------------------------------------------------------------------------------


def health(server: Server, service: str) -> str:
    with Client(server.check) as client:
        reply = client.call(asked_of(service), path=f"{HEALTH}/Check")
    return reply.outcome + (f" {state_in(reply.message)}" if reply.data else "")


class Watching:
    """One stream of Watch on a connection of its own."""

    def __init__(self, server: Server, service: str = "") -> None:
        self.client = Client(server.check)
        self.stream = self.client.stream()
        self.client.begin(self.stream, call_headers(f"{HEALTH}/Watch"))
        self.client.send(frame(DATA, END_STREAM, self.stream, asked_of(service)))

    def next(self, within_s: float = 10.0) -> str | None:
        """The next state that is told; None if none came."""
        deadline = time.monotonic() + within_s
        while (seen := self.client.receive(deadline - time.monotonic())) is not None:
            if seen.kind == DATA and seen.stream == self.stream and len(seen.payload) >= 5:
                return state_in(seen.payload[5:])
            if seen.kind == HEADERS and seen.flags & END_STREAM:
                return "ended"
        return None


def watched(server: Server, service: str) -> str:
    watching = Watching(server, service)
    with watching.client:
        first = watching.next()
        return f"{first}, then {watching.next(0.3) or 'open'}"


def refused(path: str) -> Callable[[Server], str]:
    def ask(server: Server) -> str:
        with Client(server.check) as client:
            return client.call(grpc_message(ALLOWED), path=path).outcome

    return ask


def decided(reply: Reply) -> str:
    """An answer as a reason; else what became of the call."""
    return asking.reason_of(reply.message) if reply.outcome == "status 0" else reply.outcome


def garbage(server: Server) -> str:
    noise = random.Random(NOISE_SEED)
    with Client(server.check) as client:
        told = {
            decided(client.call(grpc_message(noise.randbytes(size))))
            for size in (1, 7, 50, 600, 20_000, 300_000)
        }
        assert decided(client.call(grpc_message(ALLOWED))) == "allowed"
    return " or ".join(sorted(told))


def oversize(server: Server) -> str:
    with Client(server.check) as client:
        told = client.call(grpc_message(b"x" * (LIMIT + 1))).outcome
        announced = client.call(grpc_message(b"x", length=2**32 - 1), end=False).outcome
        assert decided(client.call(grpc_message(ALLOWED))) == "allowed"
    return f"{told}, announced {announced}"


def compressed(server: Server) -> str:
    def ask(encoding: str, payload: bytes) -> str:
        more: list[Header] = [("grpc-encoding", encoding)]
        with Client(server.check) as client:
            return decided(client.call(grpc_message(payload, compressed=1), headers=call_headers(more=more)))

    bomb = gzip.compress(bytes(64 * LIMIT // 4))
    told = {
        "gzip": ask("gzip", gzip.compress(ALLOWED)),
        "bomb": ask("gzip", bomb),
        "unknown": ask("zip-of-tomorrow", ALLOWED),
        "unsaid": ask("identity", ALLOWED),
    }
    return ", ".join(f"{name} {what}" for name, what in told.items())


def deadline_past(server: Server) -> str:
    assert log_stage.until(server.has_settled, SETTLE_S)
    before = len(logged(server))
    with Client(server.check) as client:
        told = client.call(grpc_message(ALLOWED), headers=call_headers(more=[("grpc-timeout", "1n")]))
        # Whatever was asked is decided, or counted as never delivered.
        assert client.lives()
    log_stage.until(lambda: len(logged(server)) > before, SETTLE_S)
    return f"{told.outcome}, {len(logged(server)) - before} record"


def half_message(server: Server) -> str:
    with Client(server.check) as client:
        told = client.call(grpc_message(b"x" * 10, length=100)).outcome
        cut = client.call(b"\0\0\0").outcome
        assert decided(client.call(grpc_message(ALLOWED))) == "allowed"
    return f"{told}, prefix alone {cut}"


def two_messages(server: Server) -> str:
    assert log_stage.until(server.has_settled, SETTLE_S)
    before = Counter(record["kind"] for record in logged(server))
    with Client(server.check) as client:
        told = decided(client.call(grpc_message(ALLOWED) * 2))
        assert decided(client.call(grpc_message(ALLOWED))) == "allowed"
    # The second call's record is there last.
    assert log_stage.until(server.has_settled, SETTLE_S)
    after = Counter(record["kind"] for record in logged(server))
    return f"{told}, {after['decision'] - before['decision'] - 1} decisions"


def content_type(server: Server) -> str:
    with Client(server.check) as client:
        return " or ".join(
            sorted(
                {
                    client.call(
                        grpc_message(ALLOWED), headers=call_headers(changed={"content-type": kind})
                    ).outcome
                    for kind in ("text/plain", "application/grpcx", "")
                }
            )
        )


def metadata(server: Server) -> str:
    told = []
    for size in (64 * 1024, 1 << 20):
        more: list[Header] = [("x-large", "y" * size)]
        with Client(server.check) as client:
            client.settled()
            told.append(client.call(grpc_message(ALLOWED), headers=call_headers(more=more)).outcome)
    return ", ".join(told)


ASKED: Final[dict[str, Callable[[Server], str]]] = {
    "health-check-empty-service": lambda server: health(server, ""),
    "health-check-known-service": lambda server: health(server, SERVICE),
    "health-check-unknown": lambda server: health(server, "nope"),
    "watch-first-message": lambda server: watched(server, ""),
    "watch-unknown": lambda server: watched(server, "nope"),
    "reflection-off-by-default": refused(REFLECTION),
    "unknown-method": refused(f"/{SERVICE}/Nope"),
    "unknown-service": refused("/no.Such/Call"),
    "v2-service": refused("/envoy.service.auth.v2.Authorization/Check"),
    "garbage-protobuf": garbage,
    "oversize": oversize,
    "compressed": compressed,
    "deadline-past": deadline_past,
    "half-message": half_message,
    "two-messages-unary": two_messages,
    "wrong-content-type": content_type,
    "metadata-big": metadata,
}


def logged(server: Server) -> list[dict[str, Any]]:
    """Decisions and transport events on the disk."""
    path = server.root / "var" / "decisions.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith(b"}")]
    return [record for record in records if record["kind"] in ("decision", "transport")]


def expect(case: str, front: str, outcome: str) -> None:
    print(f"{front}: {case}: {outcome}")
    assert outcome in CASES[case]["fronts"][front]


@pytest.mark.parametrize("case", ASKED)
def test_a_call_is_answered_as_its_vector_says(case: str, server: Server, front: str) -> None:
    outcome = ASKED[case](server)
    with Client(server.check) as client:
        assert decided(client.call(grpc_message(ALLOWED))) == "allowed"
    expect(case, front, outcome)


def test_a_thousand_watchers_hold_no_thread_and_leave_nothing_behind(
    server: Server, front: str, eventually: Eventually
) -> None:
    pid = server.process.pid

    def watch_and_vanish(per_connection: int) -> tuple[int, int]:
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(server.check)) for _ in range(CONNECTIONS)]
            for client in clients:
                block = plain_block(call_headers(f"{HEALTH}/Watch"))
                for _ in range(per_connection):
                    stream = client.stream()
                    client.send(
                        frame(HEADERS, END_HEADERS, stream, block)
                        + frame(DATA, END_STREAM, stream, asked_of(""))
                    )
            told = sum(len(told_states(client, per_connection)) for client in clients)
            return told, threads(pid)

    with probing(server.check) as told:
        for _ in range(2):
            watch_and_vanish(WATCHES // CONNECTIONS)
        time.sleep(DRAIN_S)
        before_kb, before_threads = memory_kb(pid), threads(pid)
        states, held = watch_and_vanish(WATCHES // CONNECTIONS)
    assert states == WATCHES
    assert held <= before_threads + THREADS_MORE
    assert not told.wrong
    print(f"{before_kb} kB before, {memory_kb(pid)} kB after")
    eventually(lambda: memory_kb(pid) <= before_kb * SHARE_MORE, SETTLE_S)
    expect("watch-many", front, "each told, none left")


def told_states(client: Client, count: int) -> list[str]:
    """The first states of this many watchers."""
    states: list[str] = []
    while len(states) < count and (seen := client.receive()) is not None:
        if seen.kind == DATA and len(seen.payload) >= 5:
            states.append(state_in(seen.payload[5:]))
    return states


def test_a_stop_under_load_says_so_first_and_answers_what_it_has_taken(
    front: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp(f"drain-{front}") / "conf"
    log_stage.directory(root, log="ring_bytes: 4194304")
    with log_stage.serving(fronts.choose(root, front)) as server, ExitStack() as stack:
        watching, busy = Watching(server), stack.enter_context(Client(server.check))
        stack.enter_context(watching.client)
        assert watching.next() == "SERVING"
        slow = begun(busy)
        with probing(server.check) as told:
            time.sleep(DRAIN_S)
            taken = [asked(busy) for _ in range(BURST)]
            assert busy.lives()  # so the server has seen them all
            server.process.terminate()
            assert watching.next() == "NOT_SERVING"
            watching.client.close()
            busy.send(frame(DATA, END_STREAM, slow, grpc_message(ALLOWED)))
            replies = replies_of(busy, [slow, *taken])
            time.sleep(DRAIN_S)
        assert decided(replies[slow]) == "allowed"
        ends = Counter(decided(reply) for reply in replies.values())
        print(f"{front}: {ends}")
        assert {*ends} <= {"allowed", "status 1", "status 14"}
        is_whole = len(replies) == 1 + BURST and {*ends} == {"allowed"}
        # grpcio cancels what it has not begun, or ends the connection first: how much that is depends on the moment.
        how_much = "whole" if is_whole and front != "grpcio" else "in part"
        # What comes after the stop finds no door.
        assert {what.partition(":")[0] for what in told.wrong} <= {"UNAVAILABLE", "CANCELLED"}
        assert told.right >= DRAIN_S * PER_SECOND * 0.8
        assert server.process.wait(40) == 0
    expect("watch-change", front, "NOT_SERVING")
    expect("shutdown-drain", front, f"NOT_SERVING first, a burst is answered {how_much}")


def asked(client: Client) -> int:
    """A whole call."""
    stream = begun(client)
    client.send(frame(DATA, END_STREAM, stream, grpc_message(ALLOWED)))
    return stream


def begun(client: Client) -> int:
    """A call whose headers are sent."""
    stream = client.stream()
    client.begin(stream, call_headers())
    return stream


def replies_of(client: Client, streams: list[int]) -> dict[int, Reply]:
    """The answers of several streams that come in any order."""
    found: dict[int, Reply] = {}
    data: defaultdict[int, bytes] = defaultdict(bytes)
    while len(found) < len(streams) and (seen := client.receive()) is not None:
        if seen.kind == DATA:
            data[seen.stream] += seen.payload
        if seen.kind == HEADERS and seen.flags & END_STREAM:
            headers = {":status": "200", **seen.headers}
            found[seen.stream] = Reply(headers, data[seen.stream], ended=True)
    return found


def test_every_case_is_replayed() -> None:
    tried = {*ASKED, "watch-many", "watch-change", "shutdown-drain"}
    for vectors in asking.vectors("grpc/expectations.json"):
        assert {case["id"] for case in vectors["cases"]} <= tried
    assert {*CASES} == tried
    assert all({*case["fronts"]} == {*fronts.FRONTS} for case in CASES.values())
