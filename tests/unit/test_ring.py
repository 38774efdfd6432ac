"""The ring's file: what was accepted is written exactly once, whatever becomes of the process that accepted it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from signalwarden import _core
from signalwarden.decision_log import Recorder, now_us
from signalwarden.decision_log.recovery import already_written
from signalwarden.decision_log.service import DecisionLog, Seal
from signalwarden.errors import LogError
from signalwarden.settings import DecisionLogSettings
from tests import asking
from tests.conftest import MINIMAL

FILES = {name: text for name, text in MINIMAL.items() if name != "signalwarden.yaml"}
FILES["policies/pages.cedar"] += '@id("never") forbid (principal, action == Action::"page.shut", resource);\n'
FILES["routes.yaml"] = FILES["routes.yaml"].replace(
    "default: deny",
    """\
  - match: {host: "pages.example", method: GET, path: "/shut/{id}"}
    action: page.shut
    resource: {type: Page, id: "{id}"}
    tier: runtime
    sensitivity: low
default: deny""",
)
RING_BYTES = 1 << 20
SETTINGS = DecisionLogSettings(rotate_bytes=1 << 30)


def engine_at(ring: Path, **options: Any) -> _core.Engine:
    return asking.running(asking.load(FILES), ring=ring, ring_bytes=RING_BYTES, **options)


def ask(engine: _core.Engine, path: str = "/home", who: str = asking.AGENT) -> str:
    """The reason."""
    answer = asking.answered(engine, bytes(asking.check_request(path=path, principal=who)))
    return asking.reason_of(answer)


def drained(engine: _core.Engine, most: int = 100_000) -> list[dict[str, Any]]:
    lines, _ = engine.drain(max_records=most, wait_ms=0)
    return [json.loads(line) for line in lines.splitlines()]


def ids(records: Sequence[dict[str, Any]]) -> list[str]:
    return [record.get("decision_id") or record["change_id"] for record in records]


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    return tmp_path / "decisions.ring"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


def log_of(engine: _core.Engine, path: Path) -> DecisionLog:
    seal = Seal("prod.example", path.parent / "keys", now_us)
    return DecisionLog(engine, Recorder(engine), SETTINGS, path, path.parent, seal)


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# ---------------------------------------------------------------- the file


def test_the_file_is_private_and_has_its_room(ring: Path) -> None:
    engine = engine_at(ring)
    status = ring.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == RING_BYTES
    assert status.st_blocks * 512 >= RING_BYTES
    engine.release()


@pytest.mark.parametrize("kind", ["in use", "directory", "pipe", "foreign", "cut", "no folder", "no room"])
def test_a_ring_that_cannot_be_used_is_one_sentence(ring: Path, kind: str) -> None:
    holder = None
    match kind:
        case "in use":
            holder = engine_at(ring)
        case "directory":
            ring.mkdir()
        case "pipe":
            os.mkfifo(ring)
        case "foreign":
            ring.write_bytes(b"{}\n" * 65_536)
        case "cut":
            engine_at(ring).release()
            os.truncate(ring, RING_BYTES // 2)
        case "no folder":
            ring = ring.with_name("none") / "ring"
    with pytest.raises(LogError) as caught:
        _core.Engine(ring=ring, ring_bytes=1 << 60 if kind == "no room" else RING_BYTES)
    assert len(str(caught.value).splitlines()) == 1
    assert str(ring) in str(caught.value)
    if holder:
        holder.release()


def test_what_is_released_takes_nothing_and_is_free_for_another(ring: Path) -> None:
    engine = engine_at(ring)
    engine.release()
    assert ask(engine) == "log_unavailable"
    other = engine_at(ring)
    assert ask(other) == "allowed"
    engine.release()
    with pytest.raises(LogError):
        engine_at(ring)
    other.release()


# ---------------------------------------------------------------- accepted


@pytest.mark.parametrize(
    "on_full", ["allow", "drop", "block", "block:", "block:0", "block:07", "block:10001", "deny:1", "blok:5"]
)
def test_a_full_log_denies_or_blocks_within_a_bound(on_full: str) -> None:
    with pytest.raises(ValidationError, match="expected `deny` or `block:` and 1 to 10000 milliseconds"):
        DecisionLogSettings.model_validate({"on_full": on_full})


@pytest.mark.parametrize(("on_full", "patience_ms"), [("deny", 0), ("block:1", 1), ("block:10000", 10_000)])
def test_how_long_a_decision_waits_for_room(on_full: str, patience_ms: int) -> None:
    log = DecisionLogSettings.model_validate({"on_full": on_full, "ack": "synced"})
    assert (log.patience_ms, log.ack) == (patience_ms, "synced")


def test_a_full_ring_denies_until_what_was_written_is_settled(ring: Path) -> None:
    engine = engine_at(ring)
    allowed = 0
    while ask(engine) == "allowed":
        allowed += 1
    assert allowed > 500
    records = drained(engine)
    assert len(records) == allowed
    assert ask(engine) == "log_unavailable", "drained, and not settled"
    engine.settle(1)
    assert ask(engine) == "allowed"
    engine.settle(allowed)
    assert [record["refused_before"] for record in drained(engine)] == [2]
    engine.release()


def test_a_decision_waits_for_room_within_its_bound(ring: Path) -> None:
    engine = engine_at(ring, patience_ms=5_000)
    count = 0
    while engine.queued() < 100:
        assert ask(engine) == "allowed"
        count += 1
    filler = b'{"change":"' + b"x" * 10_000 + b'"}'
    while engine.note(filler):
        count += 1
    while engine.note(b"{}" + b" " * 100):
        count += 1
    reasons: list[str] = []
    waiting = threading.Thread(target=lambda: reasons.append(ask(engine)))
    waiting.start()
    waiting.join(0.05)
    assert reasons == []
    assert engine.drain(max_records=count, wait_ms=0)[1] == count
    engine.settle(count)
    waiting.join(5)
    assert reasons == ["allowed"]
    engine.release()


def test_synced_answers_once_the_disk_has_it(ring: Path) -> None:
    engine = engine_at(ring, ack="synced")
    threads = [threading.Thread(target=lambda: [ask(engine) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines, count = engine.drain(max_records=1_000, wait_ms=1_000)
    assert count == 160
    assert len({json.loads(line)["decision_id"] for line in lines.splitlines()}) == 160
    assert engine.note(b'{"kind":"change"}')
    assert engine.drain(max_records=1_000, wait_ms=1_000)[1] == 1
    engine.release()


# ---------------------------------------------------------------- recovered


def test_what_was_not_settled_is_written_by_the_next_process_in_order_and_first(ring: Path) -> None:
    engine = engine_at(ring)
    for n in range(10):
        assert ask(engine, f"/shut/{n}") == "policy_denied"
        assert engine.note(json.dumps({"v": 1, "kind": "change", "change_id": f"c{n}"}).encode())
    records = drained(engine, 8)
    engine.settle(4)
    records += drained(engine)
    engine.release()
    other = engine_at(ring)
    assert other.queued() == 16
    ask(other)
    found = drained(other)
    assert ids(found[:-1]) == ids(records)[4:]
    assert all(record["recovered"] is True for record in found[:-1])
    assert "recovered" not in found[-1]
    again = [{key: value for key, value in record.items() if key != "recovered"} for record in found[:-1]]
    assert again == records[4:]
    other.settle(17)
    other.release()
    assert engine_at(ring).queued() == 0


@pytest.mark.parametrize("in_the_log", [0, 1, 7, 20])
def test_what_the_log_has_is_not_written_twice(ring: Path, path: Path, in_the_log: int) -> None:
    engine = engine_at(ring)
    recorder = Recorder(engine)
    for n in range(10):
        ask(engine, f"/shut/{n}")
        recorder.change("server_started", actor="server", n=n)
    lines, _ = engine.drain(max_records=100, wait_ms=0)
    engine.release()
    path.write_bytes(
        b'{"decision_id": "of before"}\n' + b"".join(lines.splitlines(keepends=True)[:in_the_log])
    )
    with path.open("ab") as file:
        file.write(lines.splitlines()[-1][:20])
    other = engine_at(ring)
    log = log_of(other, path)
    log.start()
    log.stop()
    found = written(path)
    assert ids(found[1:21]) == ids([json.loads(line) for line in lines.splitlines()])
    assert [record.get("recovered", False) for record in found[1:21]] == [n >= in_the_log for n in range(20)]
    told = next(record for record in found if record.get("change") == "log_recovered")
    assert (told["records"], told["already_written"], told["complete"]) == (20 - in_the_log, in_the_log, True)
    assert len(set(ids(found))) == len(found)
    other.release()


def test_nothing_is_said_where_nothing_was_left_behind(ring: Path, path: Path) -> None:
    for _ in range(2):
        engine = engine_at(ring)
        log = log_of(engine, path)
        log.start()
        ask(engine)
        log.stop()
        engine.release()
    told = [record.get("change") for record in written(path)]
    assert [change for change in told if change != "log_key_made"] == [None, "server_stopped"] * 2


KILLED = """
import json, os, signal, sys
from tests.unit.test_ring import ask, engine_at
from pathlib import Path
engine = engine_at(Path(sys.argv[1]), ack=sys.argv[2])
for n in range(int(sys.argv[3])):
    print(ask(engine, f"/shut/{n}" if n % 2 else "/home"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("ack", ["accepted", "synced"])
def test_what_a_killed_process_had_answered_is_there(ring: Path, ack: str) -> None:
    command = [sys.executable, "-c", KILLED, str(ring), ack, "25"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr.decode()
    engine = engine_at(ring)
    assert not engine.has_lost_records
    assert [record["reason"] for record in drained(engine)] == done.stdout.decode().split()
    engine.release()


def test_a_lost_page_is_told_and_the_rest_is_written(ring: Path, path: Path) -> None:
    engine = engine_at(ring)
    for n in range(20):
        ask(engine, f"/shut/{n}")
    engine.release()
    with ring.open("r+b") as file:
        file.seek(4096 + 4096)
        file.write(bytes(4096))
    other = engine_at(ring)
    assert other.has_lost_records
    log = log_of(other, path)
    log.start()
    log.stop()
    found = written(path)
    recovered = [record["request"]["path"] for record in found if record["kind"] == "decision"]
    assert 10 < len(recovered) < 20
    assert recovered == sorted(recovered, key=lambda shut: int(shut.split("/")[-1]))
    assert [record["complete"] for record in found if record.get("change") == "log_recovered"] == [False]
    other.release()


def test_a_ring_that_was_left_full_has_room_once_the_log_has_started(ring: Path, path: Path) -> None:
    engine = engine_at(ring)
    while ask(engine) == "allowed":
        pass
    engine.release()
    other = engine_at(ring)
    assert ask(other) == "log_unavailable"
    log = log_of(other, path)
    log.start()
    assert ask(other) == "allowed"
    log.stop()
    other.release()


# ---------------------------------------------------------------- folded


def folding(ring: Path, **options: Any) -> _core.Engine:
    return engine_at(ring, fold_denials=True, **options)


def test_alike_denials_become_one_line_with_an_exact_count_and_allows_none(ring: Path) -> None:
    engine = folding(ring)
    other = "spiffe://prod.example/other"
    for _ in range(3):
        ask(engine)
        ask(engine, "/shut/1")
        ask(engine, "/shut/2")
        ask(engine, "/shut/1", who=other)
        ask(engine, "/nowhere")
    lines, count = engine.drain(max_records=100, wait_ms=0)
    assert count == 15
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["outcome"] for record in records].count("allow") == 3
    denials = [record for record in records if record["outcome"] == "deny"]
    assert [record["folded"]["count"] for record in denials] == [3, 3, 3, 3]
    assert all("folded" not in record for record in records if record["outcome"] == "allow")
    assert all(record["folded"]["last_id"] > record["decision_id"] for record in denials)
    assert engine.counters()["log_folded"] == 8
    assert engine.counters()["decisions_policy_denied"] == 9
    ask(engine, "/shut/1")
    assert "folded" not in drained(engine)[0], "of another batch"
    engine.release()


@pytest.mark.parametrize("in_the_log", [0, 1, 2, 3, 4, 5, 6])
def test_folded_lines_are_not_written_twice_either(ring: Path, path: Path, in_the_log: int) -> None:
    engine = folding(ring)
    for _ in range(5):
        ask(engine, "/shut/1")
        ask(engine, "/nowhere")
        ask(engine)
    ask(engine, "/shut/2")
    lines, count = engine.drain(max_records=100, wait_ms=0)
    assert (count, len(lines.splitlines())) == (16, 8)
    engine.release()
    path.write_bytes(b"".join(lines.splitlines(keepends=True)[:in_the_log]))
    other = folding(ring)
    log = log_of(other, path)
    log.start()
    log.stop()
    found = [record for record in written(path) if record["kind"] == "decision"]
    assert sum(record.get("folded", {}).get("count", 1) for record in found) == 16
    assert len(set(ids(found))) == len(found)
    other.release()


def test_what_only_looks_alike_is_never_taken_for_written() -> None:
    """Redacted records may look alike and be folded apart."""

    def denial(name: str, **more: object) -> bytes:
        return json.dumps(
            {"decision_id": name, "outcome": "deny", "reason": "policy_denied", **more}
        ).encode()

    left = [denial(name) for name in ("a1", "b1", "a2", "b2")]
    log = [
        denial("a1", folded={"count": 2, "last_id": "a2"}),
        denial("b1", folded={"count": 2, "last_id": "b2"}),
    ]
    assert already_written_in(left, log[:1]) == {0}, "what is not sure is written again"
    assert already_written_in(left[::2], log[:1]) == {0, 1}


def already_written_in(left: list[bytes], log: list[bytes]) -> set[int]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\n".join(log) + b"\n")
        file.flush()
        return already_written(left, [Path(file.name)])


def test_a_record_that_tells_of_refused_ones_is_never_folded_away(
    ring: Path, eventually: Callable[..., None]
) -> None:
    engine = folding(ring)
    while ask(engine, "/shut/1") == "policy_denied":
        pass
    _, count = engine.drain(max_records=2, wait_ms=0)
    engine.settle(count)
    assert ask(engine, "/shut/1") == "policy_denied"
    assert ask(engine, "/shut/1") == "policy_denied"
    records = drained(engine)
    assert [record.get("refused_before", 0) for record in records] == [0, 1]
    assert records[1]["folded"]["count"] == 2
    engine.release()
