"""`decision_log.logfiles`: every reader sees the same lines in the same order, whether files are rotated or compressed."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import orjson
import pytest

from signalwarden.decision_log import Line, log_files, records_of, rotated_files
from signalwarden.decision_log.logfiles import COMPRESSED, first_line_digest, opened
from signalwarden.decision_log.tail import Tail, wanted
from signalwarden.errors import LogError

NAMES = ("decisions-000001-20261123T101500Z.jsonl", "decisions-000002-20261124T101500Z.jsonl")


def line(n: int) -> bytes:
    return orjson.dumps({"v": 1, "kind": "decision", "n": n})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three files: 0 to 9 compressed, 10 to 19 rotated, 20 to 29 the current one."""
    path = tmp_path / "decisions.jsonl"
    for at, name in enumerate((*NAMES, path.name)):
        content = b"".join(line(n) + b"\n" for n in range(at * 10, at * 10 + 10))
        if at == 0:
            (tmp_path / (name + COMPRESSED)).write_bytes(gzip.compress(content))
        else:
            (tmp_path / name).write_bytes(content)
    return path


def numbers(path: Path) -> list[int]:
    return [orjson.loads(found.raw)["n"] for found in records_of(path)]


def test_records_come_oldest_first_from_compressed_and_plain_files(path: Path) -> None:
    found = list(records_of(path))
    assert [orjson.loads(entry.raw)["n"] for entry in found] == list(range(30))
    assert found[3] == Line(path.with_name(NAMES[0] + COMPRESSED), 4, line(3))
    assert found[29] == Line(path, 10, line(29))


def test_a_file_that_is_both_is_read_once(path: Path) -> None:
    (path.with_name(NAMES[1] + COMPRESSED)).write_bytes(gzip.compress(b"half of"))
    assert numbers(path) == list(range(30))


def test_a_file_that_is_compressed_or_pruned_after_it_was_listed_is_still_read_or_left_out(
    path: Path,
) -> None:
    records = records_of(path)
    assert [orjson.loads(next(records).raw)["n"] for _ in range(3)] == [0, 1, 2]
    plain = path.with_name(NAMES[1])
    plain.with_name(plain.name + COMPRESSED).write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert [orjson.loads(found.raw)["n"] for found in records] == list(range(3, 30))
    records = records_of(path)
    next(records)
    plain.with_name(plain.name + COMPRESSED).unlink()
    assert [orjson.loads(found.raw)["n"] for found in records] == [*range(1, 10), *range(20, 30)]


def test_what_is_written_or_rotated_after_the_start_is_not_read(path: Path) -> None:
    records = records_of(path)
    next(records)
    with path.open("ab") as file:
        file.write(line(30) + b"\n")
    path.rename(path.with_name("decisions-000003-20261125T101500Z.jsonl"))
    path.write_bytes(line(31) + b"\n")
    assert [orjson.loads(found.raw)["n"] for found in records] == list(range(1, 30))


def test_half_a_line_is_none_unless_it_is_asked_for(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"n": 3')
    assert numbers(path) == list(range(30))
    assert list(records_of(path, half_lines=True))[-1] == Line(path, 11, b'{"n": 3')


def test_a_compressed_file_that_is_cut_off_is_named(path: Path) -> None:
    packed = path.with_name(NAMES[0] + COMPRESSED)
    os.truncate(packed, packed.stat().st_size - 12)
    with pytest.raises(LogError, match=r"000001.*gz` can't be read: it is cut off or damaged"):
        list(records_of(path))
    packed.write_bytes(b"no gzip at all")
    with pytest.raises(LogError, match=r"000001.*gz` can't be read: not a gzipped file"):
        list(records_of(path))


def test_a_pipe_in_the_place_of_a_file_is_named(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LogError, match="is not a regular file"):
        list(records_of(path))


def test_a_line_without_end_is_refused_before_memory_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signalwarden.decision_log.logfiles.MAX_LINE_BYTES", 1 << 16)
    path.write_bytes(b"x" * (1 << 20))
    with pytest.raises(LogError, match=r"decisions.jsonl:1` has more than 65536 bytes"):
        list(records_of(path))


def test_a_log_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    assert list(records_of(tmp_path / "none.jsonl")) == []


def test_a_file_is_known_by_its_first_line_whatever_it_is_called(path: Path) -> None:
    digests = []
    for file in log_files(path):
        with opened(file) as content:
            digests.append(first_line_digest(content))
    assert len(set(digests)) == 3
    plain = path.with_name(NAMES[1])
    packed = plain.with_name(plain.name + COMPRESSED)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert rotated_files(path)[1] == packed
    with opened(packed) as content:
        assert first_line_digest(content) == digests[1]
    path.write_bytes(b'{"half')
    with opened(path) as content:
        assert first_line_digest(content) is None


def test_tail_reads_back_into_compressed_files(path: Path) -> None:
    with Tail(path) as log:
        assert [record["n"] for _, record in log.last(25, wanted(denied_only=False))] == list(range(5, 30))
