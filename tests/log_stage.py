"""A real server whose log ships to real receivers, and what a fault of theirs or of the disk does to its answers, its records
and its memory. For tests/e2e/test_log_faults.py, and for the figures of docs/operations.md (`python -m bench.log_faults`).

`python -m tests.log_stage DIRECTORY BACKOFF`: the server itself, with so many seconds between two tries of a sink at most.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc
import httpx
import orjson

from signalwarden.decision_log import records_of
from signalwarden.server import CHECK_METHOD
from tests import asking, fronts
from tests.callers import clients, token_of
from tests.conftest import MINIMAL

READER = "spiffe://prod.example/reader"
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
STARTED = re.compile(r"check on (\S+), admin on ([^\s,]+)")


def directory(root: Path, *, log: str, rest: str = "") -> Path:
    """The smallest directory, with these settings of the log."""
    for name, text in MINIMAL.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = root / "signalwarden.yaml"
    settings.write_text(
        f"{settings.read_text()}{clients({READER: 'read'})}decision_log: {{{log}}}\n{rest}watch: false\n"
    )
    return fronts.choose(root)


@dataclass
class Answers:
    """What was answered."""

    reasons: Counter[str] = field(default_factory=Counter)
    allowed: set[str] = field(default_factory=set)
    """Ids of the decisions that were allowed."""
    denied: set[str] = field(default_factory=set)
    """Ids of denials that have a record."""

    @property
    def recorded(self) -> set[str]:
        """Ids that must be in the log."""
        return self.allowed | self.denied


@dataclass
class Server:
    """A process that serves the directory."""

    root: Path
    process: subprocess.Popen[bytes]
    check: str
    admin: str
    stderr: Path

    def ask(self, count: int, *, answers: Answers | None = None, at_once: int = 64) -> Answers:
        """So many requests that policies permit. A server that dies meanwhile ends it."""
        found = Answers() if answers is None else answers
        request = bytes(asking.check_request())
        with grpc.insecure_channel(self.check) as channel:
            call = channel.unary_unary(CHECK_METHOD, bytes, bytes)
            left = count
            while left > 0:
                futures = [call.future(request, timeout=30) for _ in range(min(at_once, left))]
                left -= len(futures)
                for future in futures:
                    try:
                        _note(found, bytes(future.result()))
                    except grpc.RpcError:
                        found.reasons["no answer"] += 1
                if found.reasons["no answer"]:
                    return found
        return found

    def get(self, path: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {token_of(READER)}"}
        return httpx.get(f"http://{self.admin}{path}", headers=headers, timeout=10, trust_env=False)

    def log(self) -> dict[str, object]:
        """What readiness says of the log."""
        found: dict[str, object] = self.get("/readyz").json()["log"]
        return found

    def has_settled(self) -> bool:
        """Whether all that was accepted is on the disk, so that the ring has its room again."""
        log = self.log()
        return [log[key] for key in ("healthy", "queued", "lag_ms")] == [True, 0, 0]

    def sink(self, name: str) -> dict[str, object]:
        sinks = self.log()["sinks"]
        assert isinstance(sinks, dict)
        found: dict[str, object] = sinks[name]
        return found

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").text, re.MULTILINE)
        assert found, name
        return float(found[1])

    def memory_kb(self, key: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)
        assert found
        return int(found[1])

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """In order; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


def _note(answers: Answers, answer: bytes) -> None:
    if b"log_unavailable" in answer:
        answers.reasons["log_unavailable"] += 1
        return
    found = _ID.search(answer)
    assert found, answer
    allowed = b"\nallowed" in answer or b"allowed" in answer
    answers.reasons["allowed" if allowed else "denied"] += 1
    (answers.allowed if allowed else answers.denied).add(found[0].decode())


@contextmanager
def serving(
    root: Path,
    *,
    backoff_s: float = 30.0,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
) -> Iterator[Server]:
    """The server, ready; killed at the end if it still runs."""
    stderr = root.parent / f"{root.name}.stderr"
    command = [sys.executable, "-m", "tests.log_stage", str(root), str(backoff_s)]
    with stderr.open("ab") as errors:
        start = errors.tell()
        process = subprocess.Popen(command, stdout=stdout, stderr=errors, env=os.environ | {"no_proxy": "*"})
    try:
        deadline = time.monotonic() + 60
        while (said := STARTED.search(stderr.read_bytes()[start:].decode())) is None:
            assert process.poll() is None, stderr.read_text()
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.05)
        yield Server(root, process, said[1], said[2], stderr)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def logged(root: Path) -> Counter[str]:
    """How often each decision stands in the log; every line is whole."""
    path = root / "var" / "decisions.jsonl"
    records = [orjson.loads(line.raw) for line in records_of(path, half_lines=True)]
    return Counter(record["decision_id"] for record in records if record["kind"] == "decision")


def changes(root: Path, change: str) -> list[dict[str, Any]]:
    """The change records of a kind."""
    path = root / "var" / "decisions.jsonl"
    records = [orjson.loads(line.raw) for line in records_of(path, half_lines=True)]
    return [record for record in records if record.get("change") == change]


def until(holds: Callable[[], object], within_s: float = 30.0) -> bool:
    """Whether it comes to hold in this time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def main(root: str, backoff_s: str) -> None:
    import logging

    from signalwarden.app import App
    from signalwarden.decision_log.shipping import shipper

    vars(shipper)["LAST_BACKOFF_S"] = float(backoff_s)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    App(root).run_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
