"""`decision_log.shipping.following`: a reader at its own pace misses nothing and repeats nothing, whatever happens to the files."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from signalwarden.decision_log import FileSink, log_files, rotated_files
from signalwarden.decision_log.logfiles import COMPRESSED
from signalwarden.decision_log.retention import Keeper
from signalwarden.decision_log.shipping.following import BEGINNING, Cursor, Following
from signalwarden.errors import LogError


def line(n: int) -> bytes:
    return orjson.dumps({"n": n, "pad": "x" * (n % 37)})


def batch(numbers: range) -> bytes:
    return b"".join(line(n) + b"\n" for n in numbers)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "decisions.jsonl"


OPEN: list[Following] = []


@pytest.fixture(autouse=True)
def readers_are_closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def following(path: Path) -> Following:
    OPEN.append(Following(path, Cursor.read(path.with_name("decisions.far.cursor"))))
    return OPEN[-1]


def take(reader: Following, most: int = 1_000, most_bytes: int = 1 << 20) -> list[int]:
    """The next batch, taken."""
    found = reader.read(most, most_bytes)
    if found is None:
        return []
    reader.taken(found, len(found.lines))
    return [orjson.loads(raw)["n"] for raw in found.lines]


def rest(reader: Following, most: int = 1_000) -> list[int]:
    """Everything to the end. From one file to the next nothing may come for one look."""
    found: list[int] = []
    looks = 0
    while looks < 3:
        more = take(reader, most)
        found += more
        looks = 0 if more else looks + 1
    return found


def pack(file: Path) -> None:
    file.with_name(file.name + COMPRESSED).write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()


def test_all_is_read_once_over_any_number_of_rotations(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=600, keep_files=1_000)
    reader = following(path)
    found: list[int] = []
    for n in range(0, 400, 7):
        sink.write(batch(range(n, min(400, n + 7))))
        if n % 3 == 0:
            found += take(reader, 5)
    assert len(rotated_files(path)) > 10
    assert found + rest(reader) == list(range(400))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_to_the_files_and_to_the_reader_nothing_is_missed(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sink = FileSink(path, rotate_bytes=chance.choice((300, 2_000, 100_000)), keep_files=1_000)
    reader, written, found = following(path), 0, []
    kept = 0
    for _ in range(300):
        match chance.randrange(9):
            case 0 | 1 | 2:
                count = chance.randrange(1, 20)
                sink.write(batch(range(written, written + count)))
                written += count
            case 3 | 4 | 5:
                found += take(reader, chance.randrange(1, 30), chance.choice((1, 50, 1 << 20)))
            case 6:
                reader.keep()
                kept = len(found)
            case 7:  # it dies; what was not kept comes again
                reader.close()
                reader = following(path)
                found = found[:kept]
            case 8:
                for file in rotated_files(path)[: chance.randrange(3)]:
                    if not file.name.endswith(COMPRESSED):
                        pack(file)
    assert found + rest(reader, 13) == list(range(written))


def test_half_a_line_waits_until_it_is_whole(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(batch(range(2)) + line(2)[:4])
    reader = following(path)
    assert take(reader) == [0, 1]
    assert take(reader) == []
    path.write_bytes(batch(range(3)))  # taken back and written anew
    assert take(reader) == [2]


def test_a_file_that_another_program_renames_is_read_to_its_end_even_after_a_restart(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=1 << 20)
    sink.write(batch(range(10)))
    reader = following(path)
    assert take(reader, 4) == [0, 1, 2, 3]
    reader.keep()
    path.rename(path.with_name("decisions.jsonl.1"))
    sink.write(batch(range(10, 20)))
    assert rest(reader) == list(range(4, 20))
    assert rest(following(path)) == list(range(4, 20))


def test_a_file_that_is_emptied_in_place_is_read_on_from_its_beginning(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=1 << 20)
    sink.write(batch(range(10)))
    reader = following(path)
    assert rest(reader) == list(range(10))
    os.truncate(path, 0)
    sink.write(batch(range(10, 13)))
    assert rest(reader) == list(range(10, 13))


def test_a_file_cut_short_by_a_loss_of_power_is_sent_again_rather_than_skipped(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=1 << 20)
    sink.write(batch(range(10)))
    reader = following(path)
    assert rest(reader) == list(range(10))
    reader.keep()
    sink.close()
    path.write_bytes(batch(range(5)))
    sink = FileSink(path, rotate_bytes=1 << 20)
    sink.write(batch(range(100, 103)))
    assert rest(following(path)) == [*range(5), *range(100, 103)]


def test_one_line_that_is_longer_than_a_batch_is_a_batch(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=1 << 20)
    sink.write(batch(range(36, 38)))
    assert take(following(path), 10, 1) == [36]


def test_the_file_that_was_read_to_its_end_is_not_held(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=100)
    reader = following(path)
    sink.write(batch(range(10)))
    assert reader.needs_from() == 1
    assert rest(reader) == list(range(10))
    assert reader.needs_from() is None
    path.rename(path.with_name("decisions-000001-20261123T101500Z.jsonl"))
    path.touch()
    assert reader.needs_from() == 1  # it does not know yet
    assert rest(reader) == []
    assert reader.needs_from() == 2
    sink.write(batch(range(10, 20)))
    assert rest(reader) == list(range(10, 20))
    assert reader.needs_from() is None


def test_what_is_pruned_before_it_was_read_is_counted(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=200, keep_files=1_000)
    for n in range(0, 100, 10):
        sink.write(batch(range(n, n + 10)))
    files = rotated_files(path)
    reader = following(path)
    assert take(reader, 3) == [0, 1, 2]
    for number, file in enumerate(files[:4], 1):
        assert reader.needs_from() == number
        reader.forgo(file, number)
        file.unlink()
    assert reader.cursor.lost == 37
    assert rest(reader) == list(range(40, 100))
    assert Cursor.read(reader.cursor.file).lost == 37


def test_a_batch_in_hand_while_its_file_is_pruned_is_not_lost_and_moves_no_place(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=200, keep_files=1_000)
    for n in range(0, 40, 10):
        sink.write(batch(range(n, n + 10)))
    reader = following(path)
    hand = reader.read(4, 1 << 20)
    assert hand is not None
    reader.forgo(rotated_files(path)[0], 1)
    rotated_files(path)[0].unlink()
    reader.taken(hand, 4)
    assert reader.cursor.lost == 6
    assert rest(reader) == list(range(10, 40))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"file": 1, "after": 0, "offset": 0}', b"\xff" * 9_000])
def test_a_damaged_cursor_sends_all_again(path: Path, text: bytes) -> None:
    FileSink(path, rotate_bytes=1 << 20).write(batch(range(3)))
    path.with_name("decisions.far.cursor").write_bytes(text)
    reader = following(path)
    assert reader.cursor.place == BEGINNING
    assert rest(reader) == [0, 1, 2]


def test_a_backlog_is_what_stood_behind_the_cursor_at_a_moment(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=200, keep_files=1_000)
    write(sink, range(100))
    pack(rotated_files(path)[1])
    reader = following(path)
    whole = reader.stretch()
    assert reader.backlog(whole) == 100
    assert take(reader, 13) == list(range(10))
    part = reader.stretch()
    sink.write(batch(range(100, 110)))  # rotates what was the current file
    assert reader.backlog(whole) == 100
    assert reader.backlog(part) == 90
    assert reader.backlog(reader.stretch()) == 100
    rest(reader)
    assert reader.backlog(reader.stretch()) == 0
    none = following(path.with_name("none.jsonl"))
    assert none.backlog(none.stretch()) == 0


def test_what_is_no_log_is_refused_before_memory_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signalwarden.decision_log.shipping.following.MAX_LINE_BYTES", 1 << 20)
    path.parent.mkdir()
    path.write_bytes(b"x" * (4 << 20))
    with pytest.raises(LogError, match="is no record"):
        following(path).read(10, 10)


# ---------------------------------------------------------------- what becomes of rotated files


class Slow:
    """A sink that has taken nothing from a file on."""

    def __init__(self, path: Path, *, required: bool) -> None:
        self.name, self.required = "far", required
        self.following = following(path)

    def needs_from(self) -> int | None:
        return self.following.needs_from()

    def forgo(self, file: Path, number: int) -> None:
        self.following.forgo(file, number)


def sink_with(path: Path, keeper: Keeper) -> FileSink:
    return FileSink(path, rotate_bytes=1_000, keeper=keeper)


def write(sink: FileSink, numbers: range) -> None:
    for n in range(numbers.start, numbers.stop, 10):
        sink.write(batch(range(n, n + 10)))


def kept(path: Path) -> list[int]:
    return [orjson.loads(raw)["n"] for file in log_files(path) for raw in file.read_bytes().splitlines()]


def test_what_a_required_sink_has_not_taken_stays_until_the_bound_then_the_log_is_full(path: Path) -> None:
    keeper = Keeper(path, keep_files=2, most_bytes=6_000, rotate_bytes=1_000)
    sink, far = sink_with(path, keeper), Slow(path, required=True)
    keeper._readers = [far]
    written, full = 0, ""
    while not full:
        try:
            sink.write(batch(range(written, written + 10)))
            written += 10
        except LogError as error:
            full = str(error)
    assert "as many as may be kept, and the required sink `far` has not taken" in full
    assert kept(path) == list(range(written))
    assert keeper.held_by == ("far",)
    assert 6_000 <= sum(file.stat().st_size for file in log_files(path)) < 7_500
    assert rest(far.following) == list(range(written))
    write(sink, range(written, written + 100))  # room again, and nothing restarted
    assert rest(far.following) == list(range(written, written + 100))
    keeper.prune()
    assert len(rotated_files(path)) == 2
    assert not keeper.held_by


def test_a_sink_that_is_not_required_loses_what_is_pruned_and_knows_how_much(path: Path) -> None:
    keeper = Keeper(path, keep_files=2, most_bytes=6_000, rotate_bytes=1_000)
    sink, far = sink_with(path, keeper), Slow(path, required=False)
    keeper._readers = [far]
    write(sink, range(1_000))
    assert len(rotated_files(path)) == 2
    seen = rest(far.following)
    assert seen == kept(path)
    assert far.following.cursor.lost == 1_000 - len(seen) > 0


def test_files_together_stay_below_the_bound(path: Path) -> None:
    keeper = Keeper(path, keep_files=1_000, most_bytes=5_000, rotate_bytes=1_000)
    sink = sink_with(path, keeper)
    for n in range(0, 2_000, 10):
        sink.write(batch(range(n, n + 10)))
        assert sum(file.stat().st_size for file in log_files(path)) <= 5_000
    assert len(rotated_files(path)) >= 3


def test_numbers_only_grow_even_if_every_rotated_file_was_pruned(path: Path) -> None:
    keeper = Keeper(path, keep_files=1_000, keep_for_s=3_600)
    sink = sink_with(path, keeper)
    write(sink, range(300))
    before = rotated_files(path)
    for file in before:
        os.utime(file, (file.stat().st_mtime - 4_000,) * 2)
    keeper.prune()
    assert rotated_files(path) == []
    sink.close()
    write(sink_with(path, keeper), range(300, 400))
    numbers = [int(file.name.split("-")[1]) for file in (before[-1], *rotated_files(path))]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) > 2


def test_a_file_whose_last_record_is_too_old_goes(path: Path) -> None:
    keeper = Keeper(path, keep_files=1_000, keep_for_s=3_600)
    sink = sink_with(path, keeper)
    write(sink, range(300))
    files = rotated_files(path)
    for file in files[:3]:
        os.utime(file, (file.stat().st_mtime - 4_000,) * 2)
    keeper.prune()
    assert rotated_files(path) == files[3:]


def test_a_file_is_rotated_by_the_age_of_its_first_record_over_a_restart_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_795_000_000.0
    monkeypatch.setattr("signalwarden.decision_log.sink.time.time", lambda: now)

    def opened() -> FileSink:
        return FileSink(path, rotate_bytes=1 << 20, rotate_every_s=3_600)

    stamped = b'{"v":1,"time":"2026-11-18T11:06:40.000000Z","n":%d}\n'  # = now
    sink = opened()
    sink.write(stamped % 0)
    now += 3_000
    sink.write(stamped % 1)
    sink.close()
    sink = opened()
    assert rotated_files(path) == []
    now += 601
    sink.write(stamped % 2)
    assert [file.read_bytes().count(b"\n") for file in log_files(path)] == [2, 1]
    now += 3_601
    sink.write(stamped % 3)
    assert [file.read_bytes().count(b"\n") for file in log_files(path)] == [2, 1, 1]


def test_rotated_files_are_compressed_whole_and_keep_their_mode_and_time(
    path: Path, eventually: object
) -> None:
    assert callable(eventually)
    keeper = Keeper(path, keep_files=1_000, compress=True)
    sink = sink_with(path, keeper)
    path.with_name("decisions-000001-20261123T101500Z.jsonl.gz.partial").write_bytes(b"left by a crash")
    reader = following(path)
    keeper.start()
    try:
        write(sink, range(500))
        eventually(lambda: all(file.name.endswith(COMPRESSED) for file in rotated_files(path)))
        assert len(rotated_files(path)) > 5
        assert {file.stat().st_mode & 0o777 for file in rotated_files(path)} == {0o600}
        assert rest(reader) == list(range(500))
        assert list(path.parent.glob("*.partial")) == []
        assert gzip.decompress(rotated_files(path)[0].read_bytes()).startswith(line(0) + b"\n")
    finally:
        keeper.stop(5)


def test_a_file_that_is_both_after_a_crash_is_compressed_anew(path: Path, eventually: object) -> None:
    assert callable(eventually)
    write(FileSink(path, rotate_bytes=1_000, keep_files=100), range(200))
    first = rotated_files(path)[0]
    lines = first.read_bytes()
    first.with_name(first.name + COMPRESSED).write_bytes(b"not the whole of it")
    keeper = Keeper(path, keep_files=1_000, compress=True)
    keeper.start()
    try:
        eventually(lambda: not first.exists())
        assert gzip.decompress(first.with_name(first.name + COMPRESSED).read_bytes()) == lines
    finally:
        keeper.stop(5)
