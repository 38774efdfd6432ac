"""Reading on in a log that is being written: no decision twice and none left out, over rotation, packing and pruning,
with a bounded read; and the decisions that a question asks for."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from signalwarden import decisions as desk
from signalwarden.decision_log import FileSink, rfc3339, uuid7
from signalwarden.decision_log.bookmark import Bookmark
from signalwarden.decision_log.heads import head_of
from signalwarden.decision_log.query import MAX_SCANNED_BYTES, Query
from signalwarden.decision_log.records import change_record
from signalwarden.decisions import MAX_STREAMS, Decisions, moment, query_of
from signalwarden.errors import BadInputError, CallRefusedError

START_US = 1_795_000_000_000_000
NOW = datetime(2026, 11, 28, 18, tzinfo=UTC)


def record(n: int, **more: Any) -> dict[str, Any]:
    """A decision, a second after the one before."""
    at = START_US + n * 1_000_000
    allowed = n % 3 != 0
    return {
        "v": 1,
        "kind": "decision",
        "decision_id": uuid7(at, n.to_bytes(8, "big")),
        "time": rfc3339(at),
        "outcome": "allow" if allowed else "deny",
        "reason": "allowed" if allowed else "policy_denied",
        "request": {"path": "/p", "action": f"page.{'read' if n % 2 else 'write'}"},
        "principal": {"id": f"spiffe://prod.example/ns/a/sa/caller-{n % 4}"},
        "number": n,
    } | more


def lines(records: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(each) + b"\n" for each in records)


def ids(numbers: Iterable[int]) -> list[str]:
    return [record(n)["decision_id"] for n in numbers]


def numbers(text: bytes) -> list[int]:
    return [orjson.loads(line)["number"] for line in text.splitlines()]


def rotate(path: Path, number: int, *, pack: bool = False) -> Path:
    """As the sink does."""
    name = path.with_name(f"{path.stem}-{number:06d}-20261128T1800{number:02d}Z.jsonl")
    path.rename(name)
    if pack:
        packed = name.with_name(name.name + ".gz")
        packed.write_bytes(gzip.compress(name.read_bytes()))
        name.unlink()
        return packed
    return name


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def drained(place: Bookmark, most: int = 4_096) -> list[int]:
    found: list[int] = []
    while taken := place.take(most):
        assert taken.endswith(b"\n")
        found += numbers(taken)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


# ---- places -----------------------------------------------------------------------------------------------


def test_a_place_begins_at_the_end_and_half_a_line_is_read_once_it_is_whole(path: Path) -> None:
    append(path, lines(map(record, range(3))))
    with Bookmark(path) as place:
        assert place.take(4_096) == b""
        whole = lines([record(3)])
        append(path, whole[:20])
        assert place.take(4_096) == b""
        append(path, whole[20:])
        assert drained(place) == [3]


def test_a_log_that_is_not_there_yet_is_read_from_its_beginning(path: Path) -> None:
    with Bookmark(path) as place:
        assert place.take(4_096) == b""
        append(path, lines([record(0)]))
        assert drained(place) == [0]


def test_nothing_is_lost_or_told_twice_over_many_rotations_whenever_the_reader_looks(path: Path) -> None:
    sink = FileSink(path, rotate_bytes=64 * 1024, keep_files=10)
    with Bookmark(path) as eager, Bookmark(path) as late:
        found: list[int] = []
        for n in range(1_200):
            sink.write(lines([record(n, padding="x" * 300)]))
            if n % 7 == 0:
                found += drained(eager)
        assert found + drained(eager) == [*range(1_200)]
        assert drained(late) == [*range(1_200)]
        assert not eager.missed
        assert not late.missed
    sink.close()


def test_what_was_pruned_before_it_was_read_is_said(path: Path) -> None:
    append(path, lines([record(0)]))
    with Bookmark(path) as place:
        append(path, lines([record(1)]))
        first = rotate(path, 1)
        append(path, lines([record(2)]))
        second = rotate(path, 2)
        append(path, lines([record(3)]))
        first.unlink()
        second.unlink()
        rotate(path, 3)
        append(path, lines([record(4)]))
        # What it had open is read to its end, whatever became of its name.
        assert drained(place) == [1, 3, 4]
        assert place.missed


def test_a_file_that_logrotate_renames_or_empties_is_followed(path: Path) -> None:
    append(path, lines([record(0)]))
    with Bookmark(path) as place:
        append(path, lines([record(1)]))
        path.rename(path.with_name("decisions.jsonl.1"))
        append(path, lines([record(2)]))
        assert drained(place) == [1, 2]
        os.truncate(path, 0)
        append(path, b"\n")
        place.take(4_096)
        append(path, lines([record(3)]))
        assert drained(place) == [3]


@pytest.mark.parametrize("pack", [False, True])
def test_a_place_is_found_by_its_record_or_its_time_in_any_file(path: Path, pack: bool) -> None:
    for part in range(4):
        append(path, lines(record(n, padding="x" * 200) for n in range(part * 500, part * 500 + 500)))
        if part < 3:
            rotate(path, part + 1, pack=pack)
    for n in (0, 1, 499, 500, 742, 1_499, 1_500, 1_998):
        place = Bookmark.after(path, ids([n])[0])
        assert place is not None
        with place:
            assert drained(place) == [*range(n + 1, 2_000)]
        line = Bookmark.find(path, ids([n])[0])
        assert line is not None
        assert orjson.loads(line)["number"] == n
    when = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(seconds=1_200)
    with Bookmark.since(path, when) as place:
        found = drained(place)
        assert found == [*range(found[0], 2_000)]
        assert found[0] <= 1_200
        if not pack:
            assert found[0] > 900  # by halves, not from the beginning


def test_a_record_that_another_one_names_is_not_it(path: Path) -> None:
    wanted = record(5)
    named = orjson.loads(change_record("approval_used", at_us=START_US, decision_id=wanted["decision_id"]))
    append(path, lines([named | {"number": 0}, wanted, record(6)]))
    line = Bookmark.find(path, wanted["decision_id"])
    assert line is not None
    assert orjson.loads(line)["kind"] == "decision"


@pytest.mark.parametrize(
    "record_id", ["", "x", "0" * 36, ids([7])[0], "../../etc/passwd", ids([7])[0].upper()]
)
def test_a_record_that_is_not_kept_has_no_place(path: Path, record_id: str) -> None:
    append(path, lines(map(record, range(5))))
    assert Bookmark.after(path, record_id) is None


def test_a_look_takes_no_more_than_it_was_given(path: Path) -> None:
    path.touch()
    with Bookmark(path) as place:
        append(path, lines(record(n) for n in range(1_000)))
        assert 0 < len(place.take(10_000)) <= 10_000
        assert place.behind() > 100_000
        # A line that is longer is taken whole all the same.
        place.skip_to_end()
        append(path, lines([record(0, padding="x" * 50_000)]))
        assert drained(place, 1_000) == [0]


def test_the_head_is_that_of_the_record_in_whatever_order_its_keys_stand() -> None:
    one = record(3)
    other = dict(reversed(one.items()))
    assert head_of(orjson.dumps(one)) == head_of(orjson.dumps(other))
    for bad in (b"", b"{", b"[]", b"null", b'{"kind":"decision"}', b"\xff"):
        assert head_of(bad) is None


# ---- questions --------------------------------------------------------------------------------------------


@pytest.fixture
def log(path: Path) -> Decisions:
    changes = (orjson.loads(change_record("revoked", at_us=START_US + n * 1_000_000)) for n in range(10))
    for part in range(3):
        append(path, lines(record(n) for n in range(part * 100, part * 100 + 100)))
        append(path, b"half a line that is no record\n" + lines(changes))
        if part < 2:
            rotate(path, part + 1, pack=part == 0)
    return Decisions(lambda: path)


def listed(
    log: Decisions, filters: dict[str, str] | None = None, *, after: str | None = None, limit: int = 1_000
) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(log.listing(filters or {}, after, limit))
    assert answer["count"] == len(answer["decisions"])
    answer["numbers"] = [each["number"] for each in answer["decisions"]]
    return answer


def test_the_newest_come_first_from_packed_files_too(log: Decisions) -> None:
    assert listed(log, limit=5)["numbers"] == [299, 298, 297, 296, 295]
    assert listed(log, limit=5)["truncated"]
    everything = listed(log)
    assert everything["numbers"] == [*reversed(range(300))]
    assert not everything["truncated"]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"outcome": "deny"}, lambda n: n % 3 == 0),
        ({"reason": "policy_denied"}, lambda n: n % 3 == 0),
        ({"principal": "spiffe://prod.example/ns/a/sa/caller-1"}, lambda n: n % 4 == 1),
        ({"principal": "spiffe://prod.example/ns/*"}, lambda n: True),
        ({"principal": "spiffe://prod.example/ns/a/sa/caller"}, lambda n: False),
        ({"action": "page.read"}, lambda n: n % 2 == 1),
        ({"action": "page.*", "outcome": "allow"}, lambda n: n % 3 != 0),
        ({"action": "page.write", "reason": "policy_denied"}, lambda n: n % 6 == 0),
        ({"since": rfc3339(START_US + 250 * 1_000_000)}, lambda n: n >= 250),
        ({"since": rfc3339(START_US + 50 * 1_000_000), "outcome": "deny"}, lambda n: n >= 50 and n % 3 == 0),
    ],
)
def test_a_filter_names_what_a_decision_must_be(log: Decisions, filters: dict[str, str], wanted: Any) -> None:
    assert listed(log, filters)["numbers"] == [n for n in reversed(range(300)) if wanted(n)]
    paged, after = [], ids([0])[0]
    while True:
        page = listed(log, filters, after=after, limit=40)
        paged += page["numbers"]
        if not page["truncated"]:
            break
        after = page["next"]
    assert paged == [n for n in range(1, 300) if wanted(n)]


def test_one_call_reads_so_much_and_says_where_to_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signalwarden.decision_log.query.MAX_SCANNED_BYTES", 100_000)
    monkeypatch.setattr("signalwarden.decision_log.query.READ_BYTES", 10_000)
    assert MAX_SCANNED_BYTES > 100_000
    append(path, lines(map(record, range(2_000))))
    log = Decisions(lambda: path)
    nobody = {"principal": "spiffe://prod.example/nobody"}
    newest = listed(log, nobody)
    assert newest["truncated"]
    assert newest["numbers"] == []
    onwards = listed(log, nobody, after=ids([0])[0])
    assert onwards["truncated"]
    assert 0 < ids(range(2_000)).index(onwards["next"]) < 1_000


def test_a_text_that_looks_like_a_filter_is_none(path: Path) -> None:
    agent = "spiffe://prod.example/ns/a/sa/agent"
    append(path, lines([record(1, request={"path": agent, "action": "x"})]))
    assert listed(Decisions(lambda: path), {"principal": agent})["numbers"] == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"outcome": "allowed"}, "`outcome`: expected one of `allow`, `deny`"),
        ({"reason": "policy_denyed"}, "did you mean `policy_denied`?"),
        ({"since": "yesterday"}, "expected a span such as `10m`"),
        ({"since": "2026-13-01T00:00:00Z"}, "expected a span such as `10m`"),
        ({"principal": "a b"}, "`principal`: expected a name"),
        ({"action": ""}, "`action`: expected a name"),
    ],
)
def test_what_means_nothing_is_refused(filters: dict[str, str], expected: str) -> None:
    with pytest.raises(BadInputError) as error:
        query_of(filters, NOW)
    assert expected in str(error.value)


def test_a_time_is_one_or_how_long_ago() -> None:
    assert moment("10m", NOW) == NOW - timedelta(minutes=10)
    assert moment("2026-11-28T10:00:00+02:00", NOW) == datetime(2026, 11, 28, 8, tzinfo=UTC)


# ---- streams ----------------------------------------------------------------------------------------------


def looked(stream: desk.Stream) -> list[int]:
    found: list[int] = []
    while True:
        look = stream.look()
        found += [orjson.loads(line)["number"] for _, line in look.records]
        if look.at_end:
            return found


def test_a_stream_goes_on_from_now_from_a_record_or_from_a_time(log: Decisions, path: Path) -> None:
    now = log.follow({"outcome": "deny"}, None)
    behind = log.follow({}, ids([150])[0])
    since = log.follow({"since": rfc3339(START_US + 290 * 1_000_000)}, None)
    append(path, lines(map(record, range(300, 305))))
    assert looked(now) == [300, 303]
    assert looked(behind) == [*range(151, 305)]
    assert looked(since) == [*range(290, 305)]
    for stream in (now, behind, since):
        stream.close()


def test_a_stream_from_behind_a_record_that_is_gone_says_so_and_begins_with_what_there_is(
    path: Path,
) -> None:
    append(path, lines(map(record, range(10, 20))))
    stream = Decisions(lambda: path).follow({}, ids([3])[0])
    look = stream.look()
    assert look.missed
    assert [orjson.loads(line)["number"] for _, line in look.records] == [*range(10, 20)]
    assert not stream.look().missed
    stream.close()


def test_a_reader_that_falls_behind_is_found_too_slow_but_not_one_that_catches_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MAX_BEHIND_BYTES", 50_000)
    monkeypatch.setattr(desk, "READ_BYTES", 10_000)
    append(path, lines(map(record, range(1_000))))
    log = Decisions(lambda: path)
    from_behind = log.follow({}, ids([0])[0])
    assert looked(from_behind) == [*range(1, 1_000)]
    append(path, lines(map(record, range(1_000, 2_000))))
    look = from_behind.look()
    assert look.too_slow
    again = log.follow({}, look.last)
    assert looked(again)[-1] == 1_999
    assert not again.look().too_slow
    from_behind.close()
    again.close()


def test_so_many_follow_and_no_more_until_one_goes(log: Decisions) -> None:
    streams = [log.follow({}, None) for _ in range(MAX_STREAMS)]
    with pytest.raises(CallRefusedError) as error:
        log.follow({}, None)
    assert error.value.code == "too_many_streams"
    assert log.numbers()["decision_streams"] == MAX_STREAMS
    streams.pop().close()
    streams.append(log.follow({}, None))
    log.stop()
    assert all(stream.ended.is_set() for stream in streams)
    with pytest.raises(CallRefusedError):
        log.follow({}, None)
    for stream in streams:
        stream.close()
    assert log.numbers()["decision_streams"] == 0


def test_one_decision_is_shown_as_it_was_written(log: Decisions) -> None:
    for n in (0, 99, 100, 299):
        assert orjson.loads(log.show(ids([n])[0]))["number"] == n
    with pytest.raises(CallRefusedError, match="no record of this id"):
        log.show(ids([400])[0])
    with pytest.raises(BadInputError, match="a UUID of version 7"):
        log.show("abc")


def test_a_change_is_no_decision(path: Path) -> None:
    change = change_record("revoked", at_us=START_US)
    append(path, change + b"\n")
    with pytest.raises(CallRefusedError):
        Decisions(lambda: path).show(orjson.loads(change)["change_id"])
    assert Query().wants(change) is None
