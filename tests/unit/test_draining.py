"""`Engine.drain_into`: what the writer of the log takes, in memory that it uses again and again."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from signalwarden import _core
from signalwarden.decision_log.integrity import merkle
from tests import asking
from tests.conftest import MINIMAL

FILES = {name: text for name, text in MINIMAL.items() if name != "signalwarden.yaml"}


@pytest.fixture(params=["in memory", "mapped"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> _core.Engine:
    ring = {} if request.param == "in memory" else {"ring": tmp_path / "ring", "ring_bytes": 1 << 20}
    return asking.running(asking.load(FILES), **ring)


def taken(engine: _core.Engine, memory: bytearray, max_bytes: int = 1 << 20) -> tuple[list[bytes], int]:
    """Lines, and how many records they stand for. Each line has its hash."""
    size, count, leaves = engine.drain_into(memory, max_records=1_000, max_bytes=max_bytes, wait_ms=0)
    lines = bytes(memory[:size]).splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    assert leaves == b"".join(sha256(b"\x00" + line[:-1]).digest() for line in lines)
    return lines, count


def test_every_record_comes_once_in_order_and_memory_grows_where_it_must(engine: _core.Engine) -> None:
    memory = bytearray(10)
    ids = []
    for round_ in range(5):
        expected = [b'{"n":%d}' % n for n in range(round_ * 3)]
        assert all(engine.note(line) for line in expected)
        asking.answered(engine, bytes(asking.check_request()))
        lines, count = taken(engine, memory)
        assert count == len(lines) == len(expected) + 1
        assert lines[:-1] == [line + b"\n" for line in expected]
        ids.append(json.loads(lines[-1])["decision_id"])
    assert len(set(ids)) == 5
    assert taken(engine, memory) == ([], 0)


def test_a_batch_has_a_bound_and_yet_one_line(tmp_path: Path) -> None:
    engine = asking.running(asking.load(FILES), ring=tmp_path / "ring", ring_bytes=1 << 20)
    memory = bytearray()
    for n in range(20):
        assert engine.note(b'{"n":%d,"pad":"%s"}' % (n, b"x" * 1_000))
    sizes = []
    while (batch := taken(engine, memory, max_bytes=3_500))[1]:
        sizes.append(batch[1])
        engine.settle(batch[1])
    assert sum(sizes) == 20
    assert set(sizes[:-1]) == {3}
    assert engine.note(b"{}" + b" " * 10_000)
    assert taken(engine, memory, max_bytes=100)[1] == 1


def test_alike_denials_are_folded_across_what_is_otherwise_a_batch(tmp_path: Path) -> None:
    engine = asking.running(asking.load(FILES), ring=tmp_path / "ring", ring_bytes=1 << 20, fold_denials=True)
    for _ in range(50):
        asking.answered(engine, bytes(asking.check_request(path="/nowhere")))
    lines, count = taken(engine, bytearray(), max_bytes=1_000)
    assert count == 50
    assert [json.loads(line)["folded"]["count"] for line in lines] == [50]


def test_what_can_not_be_handed_over_is_handed_over_the_next_time(engine: _core.Engine) -> None:
    memory = bytearray()
    assert engine.note(b'{"n":1}')
    with memoryview(memory), pytest.raises(BufferError):  # it can't grow meanwhile
        taken(engine, memory)
    assert engine.note(b'{"n":2}')
    assert taken(engine, memory) == ([b'{"n":1}\n'], 1)
    assert taken(engine, memory) == ([b'{"n":2}\n'], 1)


def resident(ring: Path) -> int:
    """Bytes of the ring's file that count as memory of this process."""
    maps = Path("/proc/self/smaps").read_text().splitlines()
    at = next(n for n, line in enumerate(maps) if line.endswith(str(ring)))
    return next(int(line.split()[1]) << 10 for line in maps[at:] if line.startswith("Rss:"))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells it")
def test_memory_of_the_ring_goes_back_once_all_is_settled_and_nothing_comes(tmp_path: Path) -> None:
    ring, memory = tmp_path / "ring", bytearray()
    engine = asking.running(asking.load(FILES), ring=ring, ring_bytes=8 << 20)
    expected = [b'{"n":%d,"pad":"%s"}' % (n, b"x" * 10_000) for n in range(400)]
    assert all(engine.note(line) for line in expected)
    lines, count = taken(engine, memory, max_bytes=8 << 20)
    assert taken(engine, memory) == ([], 0)
    assert resident(ring) > 4_000_000, "nothing of it is settled"
    engine.settle(count)
    assert taken(engine, memory) == ([], 0)
    assert resident(ring) < 1_000_000
    assert lines == [line + b"\n" for line in expected]
    assert engine.note(b'{"n":1}')
    assert taken(engine, memory) == ([b'{"n":1}\n'], 1)
    engine.release()


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256])
def test_the_core_and_python_make_the_same_root(count: int) -> None:
    hashes = [merkle.leaf_hash(b"%d" % n) for n in range(count)]
    assert _core.tree_root(b"".join(hashes)) == merkle.fold(hashes)


@pytest.mark.parametrize("wrong", [b"", b"x" * 31, b"x" * 65])
def test_a_root_is_of_whole_hashes_only(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="no whole hashes"):
        _core.tree_root(wrong)
