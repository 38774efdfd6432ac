"""`make bench-ingest`: how many values a second a server on one core takes and keeps, by HTTP and by gRPC, and how long
it is from a publisher's value to a changed decision. See README.md for what the figures mean.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from bench import directory, stage
from bench.stage import BenchError, Server
from signalwarden import _core
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.demo_stage import Authority
from signalwarden.errors import SignalwardenError
from signalwarden.publish_door import PUBLISH_METHOD
from signalwarden.server import CHECK_METHOD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS: Final = 5.0
"""Of each rate; a checkpoint of the state's journal is in it several times."""
BATCHES: Final = (1, 100, 1_000)
CALLERS: Final = 4
"""Publishers at once: what waits together is written together."""
IN_FLIGHT: Final = 4
"""Requests that a stream has in doubt."""
SUBJECTS: Final = 20_000
"""Told again and again: the state has so many rows."""
CHANGES: Final = 300
"""Changed decisions that are timed, each way."""
PAUSE_S: Final = 0.002
"""Between two checks beside a publisher: a few hundred a second, so it is the publisher that keeps the core busy."""
BUDGET_MS: Final = 1.0
"""DESIGN section 10: from accepted to changed."""
TIMEOUT_S: Final = 30.0
SIGNAL: Final = "device_trust"
SWITCHED: Final = "posture"
ERROR, ENDED = 2, 143


@dataclass(frozen=True, slots=True)
class Rate:
    """What came in one way."""

    way: str
    batch: int
    values: int
    seconds: float
    cpu_us: float
    """Processor time of the server for a value."""
    batches_a_write: float
    p50_ms: float
    p99_ms: float
    """From sending a batch to its acknowledgement."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures what publishers can send, on loopback.")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="N", help="of each rate (default 5)"
    )
    parser.add_argument("--changes", type=int, default=CHANGES, metavar="N", help="changed decisions timed")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    try:
        figures = measure(arguments.seconds, arguments.changes)
    except (BenchError, SignalwardenError, grpc.RpcError, httpx.HTTPError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return ERROR
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0


def measure(seconds: float, changes: int) -> dict[str, Any]:
    """Everything, as one document."""
    where = stage.places()
    if where.load is not None:
        os.sched_setaffinity(0, {where.load})
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
        authority = Authority(Path(folder) / "ca", "prod.example")
        ours = authority.issue("spiffe://prod.example/signalwarden", dns=("localhost",))
        svid = authority.issue(directory.PUBLISHER)
        settings = (
            f"tls: {{cert: {ours.certificate}, key: {ours.key}, client_ca: {authority.bundle}}}\n"
            "signals: {max_rate: 1000000}\n"
        )
        trusted = grpc.ssl_channel_credentials(
            authority.bundle.read_bytes(), svid.key.read_bytes(), svid.certificate.read_bytes()
        )
        with stage.signalwarden(
            Path(folder), where.server, policies=100, influence="default", settings=settings
        ) as server:
            rates = [
                _rate(way, server, batch, seconds, run)
                for way, run in (("HTTP", _http(server)), ("gRPC", _grpc(server, trusted)))
                for batch in BATCHES
            ]
            changed = _changed(server, trusted, changes)
            beside = _beside(server, trusted, seconds)
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "placement": str(where),
        "load_average": os.getloadavg()[0],
        "extension": _core.BUILD_PROFILE,
        "subjects": SUBJECTS,
        "publishers": CALLERS,
        "rates": [asdict(rate) for rate in rates],
        "changed": changed,
        "checks": beside,
    }


# ---- how many -------------------------------------------------------------------------------------------

Publisher = "Callable[[int, int, threading.Event, list[float]], int]"


def _rate(way: str, server: Server, batch: int, seconds: float, run: Any) -> Rate:
    """Several publishers for a while; each returns how many of its values were accepted."""
    _say(f"{CALLERS} publishers by {way}, {batch} values at once, {seconds:g} s")
    stop = threading.Event()
    times: list[float] = []
    groups = _groups(server)
    used, begun = stage.cpu_seconds(server.pid), time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        running = [pool.submit(run, number, batch, stop, times) for number in range(CALLERS)]
        time.sleep(seconds)
        stop.set()
        values = sum(future.result(TIMEOUT_S) for future in running)
    took, used = time.perf_counter() - begun, stage.cpu_seconds(server.pid) - used
    if not values:
        raise BenchError(f"nothing was accepted by {way}")
    now = _groups(server)
    p50, p99 = _percentiles(times)
    return Rate(
        way, batch, values, took, used / values * 1e6, (now[0] - groups[0]) / (now[1] - groups[1]), p50, p99
    )


def _groups(server: Server) -> tuple[float, float]:
    text = stage.metrics(server)
    numbers = [
        re.search(rf"^signalwarden_intake_{what}_total ([0-9.e+]+)$", text, re.MULTILINE)
        for what in ("batches", "groups")
    ]
    if not all(numbers):
        raise BenchError("the server's metrics don't say how many batches were written")
    batches, groups = (float(number[1]) for number in numbers if number)
    return batches, groups


def _subjects(number: int, batch: int) -> Iterator[list[str]]:
    """Batches of a publisher's own subjects, again and again."""
    own = [f"{directory.PRINCIPAL}-{number}-{n}" for n in range(SUBJECTS // CALLERS)]
    endless = itertools.cycle(own)
    while True:
        yield list(itertools.islice(endless, batch))


def _http(server: Server) -> Any:
    def run(number: int, batch: int, stop: threading.Event, times: list[float]) -> int:
        headers = {"authorization": f"Bearer {server.token}", "content-type": "application/json"}
        accepted = 0
        with httpx.Client(headers=headers, timeout=TIMEOUT_S, trust_env=False) as http:
            for subjects in _subjects(number, batch):
                at = rfc3339(now_us())
                body = ",".join(
                    f'{{"name":"{SIGNAL}","subject":"{subject}","value":4,"observed_at":"{at}"}}'
                    for subject in subjects
                )
                begun = time.perf_counter()
                answer = http.post(
                    f"http://127.0.0.1:{server.admin_port}/v1/signals", content=f'{{"signals":[{body}]}}'
                ).json()
                times.append(time.perf_counter() - begun)
                if answer.get("accepted") != batch:
                    raise BenchError(f"a batch was refused: {answer}")
                accepted += batch
                if stop.is_set():
                    return accepted
        return accepted

    return run


def _grpc(server: Server, trusted: grpc.ChannelCredentials) -> Any:
    def run(number: int, batch: int, stop: threading.Event, times: list[float]) -> int:
        room = threading.Semaphore(IN_FLIGHT)
        sent: queue.SimpleQueue[float] = queue.SimpleQueue()

        def requests() -> Iterator[bytes]:
            for subjects in _subjects(number, batch):
                room.acquire()
                if stop.is_set():
                    return
                message = request(SIGNAL, subjects, 4, now_us())
                sent.put(time.perf_counter())
                yield message

        accepted = 0
        with grpc.secure_channel(f"localhost:{server.signals_port}", trusted) as channel:
            for answer in _stream(channel, requests()):
                times.append(time.perf_counter() - sent.get())
                room.release()
                if answer != _accepted(batch):
                    raise BenchError(f"a batch was refused: {answer!r}")
                accepted += batch
        return accepted

    return run


def _stream(channel: grpc.Channel, requests: Iterator[bytes]) -> Any:
    call = channel.stream_stream(PUBLISH_METHOD, request_serializer=bytes, response_deserializer=bytes)
    return call(requests)


# ---- how soon -------------------------------------------------------------------------------------------


def _changed(server: Server, trusted: grpc.ChannelCredentials, changes: int) -> dict[str, Any]:
    """One signal to and fro, and checks through the front door until the answer is the other one."""
    _say(f"{changes} changed decisions, after the acknowledgement and without waiting for it")
    say: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    acknowledged, seen, whole, unawaited, checks = [], [], [], [], []
    ask = directory.allowed_request()
    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as front,
        grpc.secure_channel(f"localhost:{server.signals_port}", trusted) as channel,
    ):
        check = front.unary_unary(CHECK_METHOD, bytes, bytes)
        answers = _stream(channel, iter(say.get, None))

        def publish(good: bool) -> None:
            say.put(request(SWITCHED, [directory.PRINCIPAL], "ok" if good else "compromised", now_us()))

        def denied() -> bool:
            return b"policy_denied" in check(ask, timeout=TIMEOUT_S)

        for good in itertools.islice(itertools.cycle((False, True)), changes):
            begun = time.perf_counter()
            publish(good)
            next(answers)
            told = time.perf_counter()
            if denied() is good:
                raise BenchError("a decision after the acknowledgement did not see the value")
            now = time.perf_counter()
            acknowledged.append(told - begun)
            seen.append(now - told)
            whole.append(now - begun)
            checks.append(_timed(denied))
        for good in itertools.islice(itertools.cycle((False, True)), changes):
            begun = time.perf_counter()
            publish(good)
            while denied() is good:
                if time.perf_counter() - begun > TIMEOUT_S:
                    raise BenchError("a value did not change the decision")
            unawaited.append(time.perf_counter() - begun)
            next(answers)
        say.put(None)
    ways = {
        "sent to acknowledged": acknowledged,
        "acknowledged to changed decision": seen,
        "a check alone": checks,
        "sent to changed decision": whole,
        "sent to changed decision, acknowledgement not awaited": unawaited,
    }
    figures: dict[str, Any] = {
        name: dict(zip(("p50_ms", "p99_ms"), _percentiles(times), strict=True))
        for name, times in ways.items()
    }
    beyond = statistics.median(seen) - statistics.median(checks)
    return {**figures, "budget_ms": BUDGET_MS, "beyond_a_check_ms": beyond * 1e3}


def _beside(server: Server, trusted: grpc.ChannelCredentials, seconds: float) -> dict[str, Any]:
    """Checks of a caller that pauses, alone and while a publisher sends all that the server takes."""
    _say(f"checks, alone and beside a publisher, {seconds:g} s each")
    stop, ask = threading.Event(), directory.allowed_request()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as front, ThreadPoolExecutor(1) as pool:
        check = front.unary_unary(CHECK_METHOD, bytes, bytes)

        def checks() -> dict[str, float]:
            times, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end:
                times.append(_timed(lambda: check(ask, timeout=TIMEOUT_S)))
                time.sleep(PAUSE_S)
            return dict(zip(("p50_ms", "p99_ms"), _percentiles(times), strict=True))

        alone = checks()
        publisher = pool.submit(_grpc(server, trusted), 0, BATCHES[-1], stop, [])
        beside = checks()
        stop.set()
        values = publisher.result(TIMEOUT_S)
    return {"alone": alone, "beside a publisher": beside, "values a second": values / seconds}


def _timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _percentiles(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, round(share * len(ordered)))] * 1e3

    return at(0.5), at(0.99)


# ---- protobuf by hand: building messages must cost the load's core less than reading them costs the server ----


def request(name: str, subjects: list[str], value: object, at_us: int) -> bytes:
    """A `signalwarden.v1.PublishRequest`."""
    seconds, micros = divmod(at_us, 1_000_000)
    time_ = b"\x08" + _varint(seconds) + b"\x10" + _varint(micros * 1_000)
    said = _text(5, value) if isinstance(value, str) else b"\x20" + _varint(int(str(value)) << 1)
    tail = said + b"\x3a" + _varint(len(time_)) + time_
    head = _text(1, name)
    signals = (head + _text(2, subject) + tail for subject in subjects)
    return b"".join(b"\x0a" + _varint(len(signal)) + signal for signal in signals)


def _accepted(count: int) -> bytes:
    return b"\x08" + _varint(count)


def _text(field: int, text: str) -> bytes:
    content = text.encode()
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# ---- saying ---------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def show(figures: dict[str, Any]) -> None:
    """For people."""
    print(
        f"{figures['placement']}, extension {figures['extension']}, load average {figures['load_average']:.1f}, "
        f"{figures['publishers']} publishers, {figures['subjects']} subjects\n"
    )
    print("way   batch  values a second  server CPU a value  batches a write   p50 ms   p99 ms")
    for rate in figures["rates"]:
        print(
            f"{rate['way']:5} {rate['batch']:5}  {rate['values'] / rate['seconds']:15,.0f}  {rate['cpu_us']:15.1f} µs"
            f"  {rate['batches_a_write']:15.1f}  {rate['p50_ms']:7.1f}  {rate['p99_ms']:7.1f}"
        )
    print()
    for name, times in figures["changed"].items():
        if isinstance(times, dict):
            print(f"{name:55} p50 {times['p50_ms']:6.2f} ms   p99 {times['p99_ms']:6.2f} ms")
    checks = figures["checks"]
    for name in ("alone", "beside a publisher"):
        print(
            f"{'a check ' + name:55} p50 {checks[name]['p50_ms']:6.2f} ms   p99 {checks[name]['p99_ms']:6.2f} ms"
        )
    print(f"{'':55} of {checks['values a second']:,.0f} values a second")
    beyond, budget = figures["changed"]["beyond_a_check_ms"], figures["changed"]["budget_ms"]
    print(
        f"\naccepted to changed, beyond what a check takes by itself: {beyond:.2f} ms (budget {budget:g} ms)"
    )


if __name__ == "__main__":
    sys.exit(main())
