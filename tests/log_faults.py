"""Faults of the log and its sinks, each made with real parts: what is answered meanwhile, what is lost, what memory it takes.

Held by tests/e2e/test_log_faults.py; `python -m bench.log_faults` runs the same with more requests and prints the table.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import orjson

from tests.collector import Collector, collecting, plain
from tests.log_service import LogService, serving_logs
from tests.log_stage import Answers, Server, changes, directory, logged, serving, until
from tests.snippets import free_address

__all__ = ["SCENARIOS", "Found", "Run", "may_mount"]

SETTLE_S: Final = 60.0
"""Longest that a sink which is back is waited for: its own pause of 30 s, and the work."""
DISK_KB: Final = 8_192
RING_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Run:
    """How much of it."""

    root: Path
    count: int
    backoff_s: float = 30.0

    def server(self, log: str, **options: Any) -> contextlib.AbstractContextManager[Server]:
        return serving(directory(self.root, log=log), backoff_s=self.backoff_s, **options)


@dataclass(frozen=True)
class Found:
    """A line of the table."""

    answers: Counter[str]
    """By reason, while the fault lasted."""
    lost: int
    """Decisions that were answered and reached the log, or the sink, not at all."""
    twice: int
    """Decisions that the sink got more than once."""
    counted: int
    """Lost, as the server itself counts them."""
    memory_kb: int
    """Resident before the fault."""
    peak_kb: int
    """Highest of all."""
    said: str
    """What readiness said of it."""


class Came:
    """The decisions that a receiver got, and how often."""

    def __init__(self, receiver: Collector | LogService) -> None:
        self._receiver = receiver

    def ids(self) -> Counter[str]:
        if isinstance(self._receiver, LogService):
            return Counter(event["decision_id"] for event in self._receiver.events())
        attributes = [plain(record.attributes) for record in self._receiver.records()]
        return Counter(found["decision_id"] for found in attributes if "decision_id" in found)


def judged(
    server: Server, answers: Answers, came: Counter[str], *, before_kb: int, said: str, counted: int = 0
) -> Found:
    wanted = answers.recorded
    return Found(
        answers=answers.reasons,
        lost=len(wanted - set(logged(server.root))) or len(wanted - set(came)),
        twice=sum(count > 1 for count in came.values()),
        counted=counted,
        memory_kb=before_kb,
        peak_kb=server.memory_kb("VmHWM"),
        said=said,
    )


def _shipped(server: Server, name: str, answers: Answers, came: Came) -> Counter[str]:
    """What has come once all of it has, and the sink says so."""
    if not until(lambda: answers.recorded <= set(came.ids()), SETTLE_S):
        missing = answers.recorded - set(came.ids())
        in_log = missing & set(logged(server.root))
        raise AssertionError(
            f"{len(missing)} of {len(answers.recorded)} did not come, {len(in_log)} of them are kept"
        )
    assert until(lambda: server.sink(name)["healthy"] and server.sink(name)["lag_records"] == 0)
    return came.ids()


def _told(server: Server, name: str) -> str:
    assert until(lambda: server.sink(name)["last_error"])
    return str(server.sink(name)["last_error"])


# ---------------------------------------------------------------- receivers


def dead_collector(run: Run) -> Found:
    """Nobody listens at the collector's port."""
    port = int(free_address().rpartition(":")[2])
    with run.server(f"sinks: [{{kind: otlp, endpoint: 'http://127.0.0.1:{port}'}}]") as server:
        server.ask(100)
        before = server.memory_kb()
        answers = server.ask(run.count)
        said = _told(server, "otlp")
        with collecting(port=port) as collector:
            came = _shipped(server, "otlp", answers, Came(collector))
            return judged(server, answers, came, before_kb=before, said=said)


def _collector(run: Run, mend: Callable[[Collector], None], **faulty: Any) -> Found:
    collector = Collector(**faulty)
    settings = "sinks: [{{kind: otlp, endpoint: 'http://127.0.0.1:{port}', timeout: 1s}}]"
    with collecting(collector=collector), run.server(settings.format(port=collector.port)) as server:
        server.ask(100)
        before = server.memory_kb()
        answers = server.ask(run.count)
        said = _told(server, "otlp")
        mend(collector)
        came = _shipped(server, "otlp", answers, Came(collector))
        return judged(server, answers, came, before_kb=before, said=said)


def slow_collector(run: Run) -> Found:
    """The collector takes each batch and answers after 3 s, where the sink waits for 1 s."""

    def mend(collector: Collector) -> None:
        collector.delay_s = 0.0

    return _collector(run, mend, delay_s=3.0)


def _mended(collector: Collector) -> None:
    collector.refuses = None


def unavailable_collector(run: Run) -> Found:
    """The collector answers UNAVAILABLE."""
    return _collector(run, _mended, refuses=grpc.StatusCode.UNAVAILABLE)


def exhausted_collector(run: Run) -> Found:
    """The collector answers RESOURCE_EXHAUSTED, with a RetryInfo of 2 s."""
    return _collector(run, _mended, refuses=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=2.0)


def _service(run: Run, status: int, headers: dict[str, str]) -> Found:
    service = LogService(status=status, headers=headers)
    with serving_logs(service), run.server(f"sinks: [{{kind: http, url: '{service.url}'}}]") as server:
        server.ask(100)
        before = server.memory_kb()
        answers = server.ask(run.count)
        said = _told(server, "http")
        service.status = 200
        came = _shipped(server, "http", answers, Came(service))
        return judged(server, answers, came, before_kb=before, said=said)


def failing_service(run: Run) -> Found:
    """The HTTP service answers 500."""
    return _service(run, 500, {})


def throttling_service(run: Run) -> Found:
    """The HTTP service answers 429, with Retry-After of 2 s."""
    return _service(run, 429, {"retry-after": "2"})


def unread_stdout(run: Run) -> Found:
    """Nobody reads standard output, a pipe."""
    reads, writes = os.pipe()
    lines: list[bytes] = []
    with os.fdopen(writes, "wb") as stdout, os.fdopen(reads, "rb") as pipe:
        with run.server("sinks: [{kind: stdout}]", stdout=stdout) as server:
            stdout.close()
            reader = threading.Thread(target=lambda: lines.extend(pipe))
            before = server.memory_kb()
            answers = server.ask(run.count)
            assert until(lambda: int(str(server.sink("stdout")["lag_records"])) > 0)
            said = f"lag_records {server.sink('stdout')['lag_records']}"
            reader.start()
            assert until(lambda: server.sink("stdout")["lag_records"] == 0, SETTLE_S)
            time.sleep(0.5)
            peak = judged(server, answers, Counter(answers.recorded), before_kb=before, said=said)
            server.stop()
        reader.join(10)
    came = {orjson.loads(line).get("decision_id") for line in lines}
    return Found(peak.answers, len(answers.recorded - came), 0, 0, peak.memory_kb, peak.peak_kb, peak.said)


# ---------------------------------------------------------------- bounds


def required_sink_at_the_bound(run: Run) -> Found:
    """A required sink is dead until `keep_bytes` is reached (ring of 1 MiB)."""
    port = int(free_address().rpartition(":")[2])
    log = (
        f"ring_bytes: {RING_BYTES}, rotate_bytes: 100000, keep_files: 2, keep_bytes: 3000000, "
        f"sinks: [{{kind: otlp, endpoint: 'http://127.0.0.1:{port}'}}]"
    )
    with run.server(log) as server:
        before = server.memory_kb()
        answers = Answers()
        assert until(lambda: server.ask(200, answers=answers).reasons["log_unavailable"], 60)
        server.ask(200, answers=answers)
        said = str(server.log()["last_error"])
        assert server.log()["held_by"] == ["otlp"]
        assert server.log()["healthy"] is False
        with collecting(port=port) as collector:
            came = Came(collector)
            assert until(server.has_settled, SETTLE_S)
            after = server.ask(200)
            assert after.reasons == {"allowed": 200}
            answers.allowed |= after.allowed
            _shipped(server, "otlp", answers, came)
            files = [file for file in (server.root / "var").iterdir() if file.name.startswith("decisions")]
            assert sum(file.stat().st_size for file in files) < 3_000_000 + 2 * RING_BYTES
            wanted = answers.recorded  # older files are pruned, now that they were taken
            return Found(
                answers.reasons,
                len(wanted - set(came.ids())),
                sum(count > 1 for count in came.ids().values()),
                0,
                before,
                server.memory_kb("VmHWM"),
                said,
            )


def sink_that_may_lose(run: Run) -> Found:
    """A sink with `required: false` is dead, and retention prunes what it has not taken."""
    port = int(free_address().rpartition(":")[2])
    log = (
        "rotate_bytes: 100000, keep_files: 2, "
        f"sinks: [{{kind: otlp, endpoint: 'http://127.0.0.1:{port}', required: false}}]"
    )
    with run.server(log) as server:
        before = server.memory_kb()
        answers = server.ask(run.count)
        assert until(lambda: int(str(server.sink("otlp")["lost"])) > 0)
        said = _told(server, "otlp")
        with collecting(port=port) as collector:
            assert until(
                lambda: server.sink("otlp")["healthy"] and server.sink("otlp")["lag_records"] == 0, SETTLE_S
            )
            came = Counter(plain(record.attributes)["log.record.uid"] for record in collector.records())
            written = int(server.metric("signalwarden_log_written_total"))
            return Found(
                answers.reasons,
                written - len(came),  # of every kind
                sum(count > 1 for count in came.values()),
                int(str(server.sink("otlp")["lost"])),
                before,
                server.memory_kb("VmHWM"),
                said,
            )


# ---------------------------------------------------------------- disk and process


def may_mount() -> bool:
    """Whether a small disk can be had."""
    return os.geteuid() == 0 and Path("/proc/mounts").exists()


@contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    place.mkdir(parents=True, mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k,mode=700", "tmpfs", str(place)]
    subprocess.run(command, check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=30)


def full_disk(run: Run) -> Found:
    """The disk of the log is full (a tmpfs of 8 MiB; a ring of 1 MiB on it), then has room again."""
    with _small_disk(run.root / "var"), serving_logs() as service:
        ballast = run.root / "var" / "ballast"
        ballast.write_bytes(b"x" * 3_500_000)  # more than the ring and a batch need afterwards
        log = f"ring_bytes: {RING_BYTES}, sinks: [{{kind: http, url: '{service.url}'}}]"
        state = "state: 'sqlite:state/state.db'\nkeys: keys\n"
        root = directory(run.root, log=log, rest=state)
        with serving(root, backoff_s=run.backoff_s) as server:
            before = server.memory_kb()
            answers = Answers()
            assert until(lambda: server.ask(200, answers=answers).reasons["log_unavailable"], 60)
            server.ask(200, answers=answers)
            said = str(server.log()["last_error"])
            logged(root)  # whole lines alone, while it is full
            ballast.unlink()
            assert until(lambda: server.log()["healthy"])
            answers.allowed |= server.ask(100).allowed
            came = _shipped(server, "http", answers, Came(service))
            return judged(server, answers, came, before_kb=before, said=said)


def kill_while_shipping(run: Run) -> Found:
    """kill -9 of the server while it ships, three times; each time it is started anew."""
    service = LogService(delay_s=0.2)
    answers = Answers()
    peak = before = 0
    with serving_logs(service):
        for _ in range(3):
            with run.server(f"sinks: [{{kind: http, url: '{service.url}'}}]") as server:
                before = before or server.memory_kb()
                server.ask(run.count // 3, answers=answers)
                peak = max(peak, server.memory_kb("VmHWM"))
                server.kill()
        with run.server(f"sinks: [{{kind: http, url: '{service.url}'}}]") as server:
            service.delay_s = 0.0
            kept = set(logged(run.root))
            came = Came(service)
            until(lambda: answers.recorded | kept <= set(came.ids()), SETTLE_S)
            found = came.ids()
            assert kept <= set(found), "what the log held did not all come"
            return Found(
                answers.reasons,
                len(answers.recorded - set(found)),
                sum(count > 1 for count in found.values()),
                0,
                before,
                max(peak, server.memory_kb("VmHWM")),
                "",
            )


def _more_than(answers: Answers, count: int) -> bool:
    return len(answers.recorded) > count


def _killed(run: Run, log: str, *, kills: int = 4) -> Found:
    """Each time while 64 calls are under way."""
    answers = Answers()
    before = peak = 0
    for nth in range(kills):
        with run.server(log) as server:
            before = before or server.memory_kb()
            asking = threading.Thread(target=server.ask, args=(run.count,), kwargs={"answers": answers})
            asking.start()
            enough = len(answers.recorded) + 50
            assert until(partial(_more_than, answers, enough))
            time.sleep(0.05 * (nth + 1))  # at another moment of the writer's round each time
            peak = max(peak, server.memory_kb("VmHWM"))
            server.kill()
            asking.join(60)
    with run.server(log) as server:
        peak = max(peak, server.memory_kb("VmHWM"))
        assert server.stop() == 0
    found = logged(run.root)
    recovered = sum(told["records"] for told in changes(run.root, "log_recovered"))
    answers.reasons.pop("no answer", None)
    return Found(
        answers.reasons,
        len(answers.recorded - set(found)),
        sum(count > 1 for count in found.values()),
        0,
        before,
        peak,
        f"{recovered} records recovered",
    )


def kill_under_load(run: Run) -> Found:
    """kill -9 of the server under load, four times (`ack: accepted`)."""
    return _killed(run, "rotate_bytes: 200000, keep_files: 1000")


def kill_under_load_synced(run: Run) -> Found:
    """kill -9 of the server under load, four times (`ack: synced`)."""
    return _killed(run, "ack: synced")


def kill_while_the_log_is_stuck(run: Run) -> Found:
    """kill -9 while nothing can be written to the log (a limit on the size of its file)."""
    with run.server("influence: none") as server:
        before = server.memory_kb()
        _limit(server, 0)
        answers = server.ask(run.count)
        said = _log_error(server)
        peak = server.memory_kb("VmHWM")
        server.kill()
    with run.server("influence: none") as server:
        assert server.stop() == 0
    found = logged(run.root)
    twice = sum(count > 1 for count in found.values())
    return Found(answers.reasons, len(answers.recorded - set(found)), twice, 0, before, peak, said)


def _limit(server: Server, bytes_: int) -> None:
    """No file of the server grows beyond this any more; -1: as before."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))


def _log_error(server: Server) -> str:
    assert until(lambda: server.log()["last_error"])
    return str(server.log()["last_error"])


def _ring_full(run: Run, on_full: str) -> Found:
    """Nothing can be written; the ring of 1 MiB fills, and the log is mended."""
    with run.server(f"ring_bytes: 1048576, influence: none, on_full: '{on_full}'") as server:
        before = server.memory_kb()
        _limit(server, 0)
        answers = Answers()
        assert until(lambda: server.ask(200, answers=answers).reasons["log_unavailable"], 60)
        started = time.monotonic()
        server.ask(64, answers=answers)
        took = time.monotonic() - started
        said = f"{_log_error(server)}; 64 calls at once were denied in {took:.1f} s"
        _limit(server, -1)
        # Room in the ring is free once what was drained is synced.
        assert until(server.has_settled)
        after = server.ask(100)
        answers.allowed |= after.allowed
        assert after.reasons == {"allowed": 100}
        peak = server.memory_kb("VmHWM")
        assert server.stop() == 0
    found = logged(run.root)
    twice = sum(count > 1 for count in found.values())
    return Found(answers.reasons, len(answers.recorded - set(found)), twice, 0, before, peak, said)


def stuck_log(run: Run) -> Found:
    """Nothing can be written to the log, and the ring of 1 MiB is full (`on_full: deny`)."""
    return _ring_full(run, "deny")


def stuck_log_that_blocks(run: Run) -> Found:
    """The same with `on_full: block:50`."""
    return _ring_full(run, "block:50")


SCENARIOS: Final[dict[str, Callable[[Run], Found]]] = {
    scenario.__name__: scenario
    for scenario in (
        dead_collector,
        slow_collector,
        unavailable_collector,
        exhausted_collector,
        failing_service,
        throttling_service,
        unread_stdout,
        required_sink_at_the_bound,
        sink_that_may_lose,
        full_disk,
        kill_while_shipping,
        kill_under_load,
        kill_under_load_synced,
        kill_while_the_log_is_stuck,
        stuck_log,
        stuck_log_that_blocks,
    )
}
