"""`decision_log`: accepted records reach the file once each, whole, in order, whatever the disk does."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from signalwarden.decision_log import FileSink, LogWriter, Recorder, log_files, rotated_files, uuid7
from signalwarden.decision_log.records import MAX_WAITING, change_record, rfc3339, transport_record
from signalwarden.errors import LogError
from signalwarden.files import sync_data

AT = 1_795_000_000_123_456


class Ring:
    """The engine's ring as the writer sees it: bounded, thread-safe."""

    def __init__(self, capacity: int = 1_000_000) -> None:
        self._lines: deque[bytes] = deque()
        self._capacity = capacity
        self._ready = threading.Condition()
        self.settled = 0

    def note(self, line: bytes) -> bool:
        with self._ready:
            if len(self._lines) >= self._capacity:
                return False
            self._lines.append(line)
            self._ready.notify()
            return True

    def drain(self, *, max_records: int, wait_ms: int) -> tuple[bytes, int]:
        with self._ready:
            if not self._lines and wait_ms:
                self._ready.wait(wait_ms / 1000)
            taken = [self._lines.popleft() for _ in range(min(max_records, len(self._lines)))]
        return b"".join(line + b"\n" for line in taken), len(taken)

    def drain_into(
        self, into: bytearray, *, max_records: int, max_bytes: int, wait_ms: int
    ) -> tuple[int, int, bytes]:
        lines, count = self.drain(max_records=max_records, wait_ms=wait_ms)
        into[: len(lines)] = lines
        return len(lines), count, bytes(32 * lines.count(b"\n"))

    def settle(self, count: int) -> None:
        self.settled += count

    def queued(self) -> int:
        return len(self._lines)


@contextmanager
def writing(
    path: Path, ring: Ring, *, rotate_bytes: int = 1 << 30, keep_files: int = 5
) -> Iterator[LogWriter]:
    recorder = Recorder(ring, lambda: AT)
    writer = LogWriter(ring, FileSink(path, rotate_bytes=rotate_bytes, keep_files=keep_files), recorder)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop(5)


def numbers(path: Path) -> list[int]:
    """The numbers of the records of all files; every line must be whole."""
    found = []
    for file in log_files(path):
        text = file.read_bytes()
        assert text == b"" or text.endswith(b"\n")
        found += [orjson.loads(line)["n"] for line in text.splitlines()]
    return found


def record(n: int) -> bytes:
    return orjson.dumps({"n": n, "pad": "x" * 100})


def batch(numbers_: range) -> bytes:
    return b"".join(record(n) + b"\n" for n in numbers_)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "decisions.jsonl"


def sink_at(path: Path, *, rotate_bytes: int = 1 << 30, keep_files: int = 5) -> FileSink:
    return FileSink(path, rotate_bytes=rotate_bytes, keep_files=keep_files)


# ---------------------------------------------------------------- the writer


def test_an_orderly_stop_writes_everything_accepted(path: Path) -> None:
    ring = Ring()
    with writing(path, ring):
        for n in range(20_000):
            assert ring.note(record(n))
    assert numbers(path) == list(range(20_000))


def test_a_record_is_in_the_file_and_synced_within_half_a_second(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()

    def sync(fd: int) -> None:
        sync_data(fd)
        if path.stat().st_size:
            synced.set()

    monkeypatch.setattr("signalwarden.decision_log.sink.sync_data", sync)
    ring = Ring()
    with writing(path, ring):
        time.sleep(0.2)
        for n in range(3):
            synced.clear()
            ring.note(record(n))
            assert synced.wait(0.5)
            assert numbers(path)[-1] == n


def test_files_are_private(path: Path) -> None:
    before = os.umask(0)
    try:
        sink_at(path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


class Disk:
    """`os.write` with faults: takes so many bytes, then fails until mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        self._real = os.write
        self._code = code
        self.room: int | None = None
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: memoryview) -> int:
        if self.room is None:
            return self._real(fd, data)
        if self.room == 0:
            raise OSError(self._code, os.strerror(self._code))
        taken = self._real(fd, data[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_loses_and_repeats_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, eventually: Callable[..., None]
) -> None:
    disk = Disk(monkeypatch, code)
    ring = Ring()
    with writing(path, ring) as writer:
        eventually(lambda: writer.health().healthy)
        for round_, room in enumerate((0, 1, 57, 1_000, 4_321)):
            disk.room = room
            for n in range(round_ * 100, round_ * 100 + 100):
                ring.note(record(n))
            eventually(lambda: not writer.health().healthy)
            numbers(path)  # readers see whole lines only, while the disk is full
            assert writer.health().lag_s >= 0
            disk.room = None
            expected = (round_ + 1) * 100
            eventually(lambda expected=expected: len(numbers(path)) == expected)
            eventually(lambda: writer.health().healthy)
        assert writer.health().failures >= 5
        assert writer.health().last_error == os.strerror(code).lower()
    assert numbers(path) == list(range(500))


@pytest.mark.parametrize("room", [0, 1, 130, 1_000])
def test_a_real_short_write_ends_at_a_line_and_goes_on_after_it(path: Path, room: int) -> None:
    sink = sink_at(path)
    sink.write(batch(range(3)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))  # the kernel writes so much
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="too large"):
                sink.write(batch(range(3, 50)))
            numbers(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.write(batch(range(3, 50)))
    sink.close()
    assert numbers(path) == list(range(50))


def test_while_the_disk_fails_the_ring_fills_and_refuses(
    path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    disk = Disk(monkeypatch, errno.ENOSPC)
    ring = Ring(capacity=10)
    with writing(path, ring) as writer:
        disk.room = 0
        accepted = 0

        def full() -> bool:
            nonlocal accepted
            if ring.note(record(accepted)):
                accepted += 1
                return False
            return not writer.health().healthy

        eventually(full)
        disk.room = None
    assert numbers(path) == list(range(accepted))


def test_a_stop_that_cannot_write_says_how_many_records_were_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    disk = Disk(monkeypatch, errno.ENOSPC)
    disk.room = 0
    ring = Ring()
    writer = LogWriter(ring, sink_at(path), Recorder(ring))
    for n in range(3):
        ring.note(record(n))
    writer.start()
    eventually(lambda: not writer.health().healthy)
    started = time.monotonic()
    with pytest.raises(LogError, match="3 records could not be written"):
        writer.stop(0.2)
    assert time.monotonic() - started < 5


def test_a_failing_sync_is_not_healthy_until_one_succeeds(
    path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    broken = True

    def sync(fd: int) -> None:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync_data(fd)

    ring = Ring()
    with writing(path, ring) as writer:
        monkeypatch.setattr("signalwarden.decision_log.sink.sync_data", sync)
        ring.note(record(0))
        eventually(lambda: not writer.health().healthy)
        broken = False
        eventually(lambda: writer.health().healthy)
    assert numbers(path) == [0]


def test_the_ring_may_forget_what_was_synced_and_nothing_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    disk = Disk(monkeypatch, errno.ENOSPC)
    disk.room = 0
    ring = Ring()
    with writing(path, ring) as writer:
        ring.note(record(0))
        eventually(lambda: not writer.health().healthy)
        assert ring.settled == 0, "not written"

        def sync(_fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr("signalwarden.decision_log.sink.sync_data", sync)
            disk.room = None
            eventually(lambda: numbers(path) == [0] and not writer.health().healthy)
            ring.note(record(1))
            eventually(lambda: numbers(path) == [0, 1])
            assert ring.settled == 0, "not synced"
        eventually(lambda: ring.settled == 2)
    assert ring.settled == 2


# ---------------------------------------------------------------- the file


def test_a_half_line_that_a_crash_left_is_cut_off(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(batch(range(3)) + record(3)[:20])
    sink = sink_at(path)
    assert sink.repaired_bytes == 20
    sink.write(batch(range(3, 5)))
    sink.close()
    assert numbers(path) == list(range(5))


def test_a_file_of_one_half_line_is_emptied(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * (3 << 20))
    sink = sink_at(path)
    assert sink.repaired_bytes == 3 << 20
    assert path.stat().st_size == 0
    sink.close()


def test_a_full_file_is_rotated_and_the_oldest_go(path: Path) -> None:
    sink = sink_at(path, rotate_bytes=2_000, keep_files=3)
    for n in range(0, 200, 5):
        sink.write(batch(range(n, n + 5)))
    sink.close()
    files = rotated_files(path)
    assert len(files) == 3
    assert all(file.stat().st_size <= 2_000 for file in log_files(path))
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in log_files(path))
    kept = numbers(path)
    assert kept == list(range(kept[0], 200))
    sequence = [int(file.name.split("-")[1]) for file in files]
    assert sequence == list(range(sequence[0], sequence[0] + 3))


def test_rotation_goes_on_counting_after_a_restart(path: Path) -> None:
    for n in range(4):
        sink = sink_at(path, rotate_bytes=100, keep_files=100)
        sink.write(batch(range(n, n + 1)))
        sink.close()
    assert [int(file.name.split("-")[1]) for file in rotated_files(path)] == [1, 2, 3]
    assert numbers(path) == [0, 1, 2, 3]


def test_a_rotation_that_fails_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sink_at(path, rotate_bytes=100)
    sink.write(batch(range(1)))
    with monkeypatch.context() as patch:

        def rename(_self: Path, _target: Path) -> Path:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        patch.setattr(Path, "rename", rename)
        with pytest.raises(OSError, match="denied"):
            sink.write(batch(range(1, 2)))
    sink.write(batch(range(1, 2)))
    sink.close()
    assert numbers(path) == [0, 1]


def test_a_file_moved_by_another_program_is_made_again(path: Path) -> None:
    sink = sink_at(path)
    sink.write(batch(range(1)))
    path.rename(path.with_name("moved"))
    sink.write(batch(range(1, 2)))
    path.unlink()
    sink.write(batch(range(2, 3)))
    sink.close()
    assert numbers(path) == [2]
    assert path.with_name("moved").read_bytes() == batch(range(1))


def test_a_file_emptied_by_another_program_has_no_hole(path: Path) -> None:
    sink = sink_at(path)
    sink.write(batch(range(2)))
    os.truncate(path, 0)
    sink.write(batch(range(2, 3)))
    sink.close()
    assert path.read_bytes() == batch(range(2, 3))


@pytest.mark.parametrize("kind", ["directory", "under a file", "pipe", "in use"])
def test_a_log_that_cannot_be_written_is_one_sentence(path: Path, kind: str) -> None:
    holder = None
    if kind == "under a file":
        path.parent.write_text("x")
    else:
        path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "in use":
        holder = sink_at(path)
    with pytest.raises(LogError) as caught:
        sink_at(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)
    if holder:
        holder.close()


# ---------------------------------------------------------------- records


def test_uuid7_holds_the_time_and_sorts_by_it() -> None:
    made = [uuid7(AT + n) for n in range(0, 5_000, 10)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    parsed = uuid.UUID(made[0])
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == AT // 1000


def test_uuid7_takes_its_randomness_as_an_argument() -> None:
    assert uuid7(AT, b"\xff" * 8) == uuid7(AT, b"\xff" * 8)
    assert uuid7(AT, b"\x00" * 8) == uuid7(AT, b"\x00" * 8) != uuid7(AT, b"\xff" * 8)


def test_a_change_record_says_what_when_and_who() -> None:
    found = orjson.loads(change_record("configuration_loaded", at_us=AT, actor="SIGHUP", revision="ab"))
    assert uuid.UUID(found.pop("change_id")).version == 7
    assert found == {
        "v": 1,
        "kind": "change",
        "time": rfc3339(AT),
        "change": "configuration_loaded",
        "actor": "SIGHUP",
        "revision": "ab",
    }


def test_a_transport_record_has_its_own_kind() -> None:
    found = orjson.loads(transport_record("undelivered", at_us=AT, count=3))
    assert (found["kind"], found["transport"], found["count"]) == ("transport", "undelivered", 3)


def test_times_are_written_in_utc_with_microseconds() -> None:
    assert rfc3339(1_000_001) == "1970-01-01T00:00:01.000001Z"


def test_a_refused_record_is_offered_again_in_order() -> None:
    ring = Ring(capacity=1)
    recorder = Recorder(ring, lambda: AT)
    for name in ("one", "two", "three"):
        recorder.change(name)
    assert recorder.refused == 2
    seen = []
    for _ in range(3):
        lines, _ = ring.drain(max_records=10, wait_ms=0)
        seen += [orjson.loads(line)["change"] for line in lines.splitlines()]
        recorder.retry()
    assert seen == ["one", "two", "three"]
    assert recorder.retry() == 0
    assert recorder.lost == 0


def test_what_cannot_wait_is_counted_and_said() -> None:
    ring = Ring(capacity=1)
    recorder = Recorder(ring, lambda: AT)
    for n in range(1 + MAX_WAITING + 5):
        recorder.change("flood", n=n)
    assert recorder.lost == 5
    seen = []
    for _ in range(MAX_WAITING + 3):
        lines, _ = ring.drain(max_records=10, wait_ms=0)
        seen += [orjson.loads(line) for line in lines.splitlines()]
        recorder.retry()
    assert [found["n"] for found in seen if found["change"] == "flood"] == list(range(1 + MAX_WAITING))
    assert [found["count"] for found in seen if found["change"] == "records_lost"] == [5]


def test_records_made_while_the_log_is_full_reach_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    disk = Disk(monkeypatch, errno.ENOSPC)
    disk.room = 0
    ring = Ring(capacity=1)
    recorder = Recorder(ring, lambda: AT)
    writer = LogWriter(ring, sink_at(path), recorder)
    writer.start()
    for n in range(10):
        recorder.change("flood", n=n)
    eventually(lambda: not writer.health().healthy)
    disk.room = None
    writer.stop(5)
    assert numbers(path) == list(range(10))
