"""`log tail`: filters on real records, compressed and rotated files, and what is no record."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalwarden import starter
from signalwarden.decision_log import log_files, tail
from signalwarden.errors import BadInputError
from signalwarden.log_reading.filters import Filters, ended_before
from tests.commanding import Commands
from tests.recorded import MIX, Recorded


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded.starter(tmp_path / "refunds")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], recorded: Recorded) -> Commands:
    return Commands(capfd, recorded.directory)


@pytest.fixture
def kinds(recorded: Recorded) -> dict[str, str]:
    """One record of each of these kinds in the log, by id."""
    made = {
        "unknown": recorded.decide(MIX[0])[0],
        "half": recorded.decide(MIX[1])[0],
        "allowed": recorded.decide(MIX[2])[0],
        "low": recorded.decide(MIX[3])[0],
        "attacked": recorded.decide(MIX[4])[0],
        "elsewhere": recorded.decide({}, path="/nowhere")[0],
        "nobody": recorded.decide({}, principal="")[0],
    }
    recorded.change("server_started", actor="server", version="0")
    recorded.write()
    return {entry["decision_id"]: name for name, entry in made.items()}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("--allow", "allowed"),
        ("--deny --reason allowed", ""),
        ("--reason allowed --reason policy_denied", "allowed attacked"),
        ("--signal posture:missing", "unknown half"),
        ("--signal posture:decisive --deny", "unknown half attacked"),
        ("--signal *:missing --signal device_trust:fresh --allow", "allowed"),
        ("--signal no_such_signal", ""),
        ("--principal refund-agent --reason signal_unavailable", "unknown half"),
        ("--principal refund-agen", ""),
        ("--principal spiffe://prod.example/*/refund-agent --allow", "allowed"),
        ("--principal sa/*agent --allow", "allowed"),
        ("--action refund.* --deny", "unknown half low attacked nobody"),
        ("--action account.read", ""),
        ('--resource Account::"42" --allow', "allowed"),
        ("--resource Account::* --allow", "allowed"),
        ("--route 11 --allow", "allowed"),
        ("--route routes.yaml:11 --allow", "allowed"),
        ("--route 4", ""),
        ("--host payments.* --allow", "allowed"),
        ("--host *.test", ""),
        ("--task *", ""),
        ("--since 1h --reason route_unknown", "elsewhere"),
        ("--until 1h", ""),
        ("--since 2020-01-01T00:00:00Z --until 2020-01-02T00:00:00+01:00", ""),
    ],
)
def test_an_option_shows_its_records_and_no_others(
    run: Commands, kinds: dict[str, str], options: str, shown: str
) -> None:
    ran = run("log", "tail", "--json", *options.split())
    assert (ran.status, ran.err) == (0, "")
    assert sorted(kinds[one] for one in ran.ids()) == sorted(shown.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--reason polcy_denied", "`polcy_denied` is not a reason, did you mean `policy_denied`?"),
        ("--reason nonsense", "is not a reason"),
        ("--signal posture:mising", "did you mean `missing`?"),
        ("--signal posture:xyz", "expected one of `fresh`, `stale`"),
        ("--signal Posture", "names no signal"),
        ("--since yesterday", "neither a span such as `10m`"),
        ("--until 10", "neither a span such as `10m`"),
        ("--since 1h --until 2h", "is not before"),
    ],
)
def test_a_filter_that_means_nothing_is_one_sentence(
    run: Commands, recorded: Recorded, options: str, said: str
) -> None:
    assert said in run("log", "tail", *options.split()).sentence


def test_a_task_shows_its_calls_those_below_it_and_its_changes() -> None:
    want = Filters(tasks=("t-1",)).question()
    assert want({"kind": "decision", "grant": {"task": "t-1"}})
    assert want({"kind": "decision", "grant": {"task": "t-2"}, "chain": {"tasks": ["t-2", "t-1"]}})
    assert want({"kind": "change", "change": "task_ended", "task_id": "t-1"})
    assert not want({"kind": "decision", "grant": {"sha256": "0"}, "chain": None})
    assert not want({"kind": "change", "change": "server_started"})


def test_a_bracket_is_a_letter_and_no_class() -> None:
    want = Filters(hosts=("[::1]:*",)).question()
    assert want({"request": {"host": "[::1]:8080"}})
    assert not want({"request": {"host": ":"}})


@pytest.mark.parametrize(
    "hostile", [{"principal": 3}, {"request": []}, {"signals": [1]}, {"grant": "x"}, {"chain": 1}]
)
def test_records_of_another_shape_are_not_wanted_and_do_no_harm(hostile: dict[str, Any]) -> None:
    every = ("principals", "actions", "resources", "routes", "tasks", "hosts")
    for name in every:
        given: dict[str, Any] = {name: ("x",)}
        assert not Filters(**given).question()({"kind": "decision", **hostile})
    assert not Filters(signals=("x",)).question()({"kind": "decision", **hostile})


def test_since_shows_all_and_skips_files_that_end_before(run: Commands, recorded: Recorded) -> None:
    recorded.decide(MIX[2], count=15)
    recorded.write()
    assert len(run("log", "tail", "--json").ids()) == 10
    assert len(run("log", "tail", "--json", "--since", "10m").ids()) == 15
    assert len(run("log", "tail", "--json", "--since", "10m", "-n", "3").ids()) == 3
    old = recorded.log.with_name("decisions-000001-20200101T000000Z.jsonl.gz")
    old.write_bytes(b"damaged, but nobody looks")
    assert run("log", "tail", "--since", "10m").err == ""
    assert ended_before(old, 1_800_000_000_000_000)
    assert not ended_before(old, round(datetime(2020, 1, 1, 0, 59, tzinfo=UTC).timestamp() * 1e6))


def test_compressed_files_are_read_in_their_place(run: Commands, recorded: Recorded) -> None:
    first = [entry["decision_id"] for entry in recorded.decide(MIX[2], count=3)]
    recorded.write().rotate(1, compressed=True)
    second = [entry["decision_id"] for entry in recorded.decide(MIX[0], count=3)]
    recorded.write().rotate(2)
    third = [entry["decision_id"] for entry in recorded.decide(MIX[4], count=2)]
    recorded.write()
    assert run("log", "tail", "--json", "-n", "7").ids() == [*first[1:], *second, *third]
    assert run("log", "tail", "--json", "--since", "1h").ids() == [*first, *second, *third]
    assert run("log", "tail", "--json", "-n", "2", "--allow").ids() == first[1:]


def test_of_a_file_that_is_just_being_compressed_one_is_read(run: Commands, recorded: Recorded) -> None:
    ids = [entry["decision_id"] for entry in recorded.decide(MIX[2], count=3)]
    plain = recorded.write().rotate(1)
    plain.with_name(plain.name + ".gz").write_bytes(gzip.compress(plain.read_bytes())[:40])
    assert log_files(recorded.log) == [plain]
    assert run("log", "tail", "--json").ids() == ids


def test_what_is_no_record_is_skipped_counted_and_named(run: Commands, recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[2])
    newer = {**entry, "v": 2}
    recorded.lines += [
        b'{"cut": "of',
        json.dumps(newer).encode(),
        b'{"some": "object"}',
        b'{"v":1,"kind":"poem"}',
    ]
    recorded.write()
    ran = run("log", "tail", "--json")
    assert (ran.status, ran.ids()) == (0, [entry["decision_id"]])
    assert sorted(ran.err.splitlines()) == [
        "signalwarden: skipped 1 line of the log: JSON, but no record: it has no `v` and `kind`",
        'signalwarden: skipped 1 line of the log: a record of the kind "poem", which is not known here',
        "signalwarden: skipped 1 line of the log: a record of version 2, this program reads 1",
        "signalwarden: skipped 1 line of the log: not JSON",
    ]


def test_a_compressed_file_that_is_cut_off_tells_what_it_has(run: Commands, recorded: Recorded) -> None:
    recorded.decide(MIX[2], count=400)
    packed = recorded.write().rotate(1, compressed=True)
    packed.write_bytes(packed.read_bytes()[:-2000])
    ran = run("log", "tail", "--json", "-n", "1000")
    assert 0 < len(ran.ids()) <= 400
    assert "cut off or damaged" in ran.err


def test_a_follower_that_was_held_up_misses_no_file(recorded: Recorded) -> None:
    recorded.decide(MIX[2])
    recorded.write()
    expected: list[str] = []
    with tail.Tail(recorded.log) as log:
        for number in range(1, 4):
            recorded.write()
            expected += [entry["decision_id"] for entry in recorded.decide(MIX[2], count=2)]
            recorded.write().rotate(number, compressed=number == 2)
        recorded.log.touch()
        seen: list[str] = []
        deadline = time.monotonic() + 10
        done = lambda: len(seen) == len(expected) or time.monotonic() > deadline  # noqa: E731
        for _, entry in log.follow(lambda _: True, stopped=done, poll=0.01):
            seen.append(entry["decision_id"])
    assert seen == expected


def test_a_log_that_is_rotated_while_it_is_read_is_not_read_twice(recorded: Recorded) -> None:
    ids = [entry["decision_id"] for entry in recorded.decide(MIX[2], count=5)]
    recorded.write()
    with tail.Tail(recorded.log) as log:
        recorded.rotate(1, compressed=True)
        assert [entry["decision_id"] for _, entry in log.last(10, lambda _: True)] == ids
        assert [entry["decision_id"] for _, entry in log.whole(lambda _: True)] == ids


def test_a_follower_begins_with_the_first_record_of_a_log_that_is_not_there_yet(recorded: Recorded) -> None:
    seen: list[str] = []
    stop = threading.Event()
    with tail.Tail(recorded.log) as log:
        assert log.last(10, lambda _: True) == []
        expected = [recorded.decide(MIX[2])[0]["decision_id"]]
        recorded.write().rotate(1)
        expected += [recorded.decide(MIX[2])[0]["decision_id"]]
        recorded.write()
        deadline = time.monotonic() + 10
        for _, entry in log.follow(
            lambda _: True, stopped=lambda: stop.is_set() or time.monotonic() > deadline, poll=0.01
        ):
            seen.append(entry["decision_id"])
            if len(seen) == 2:
                stop.set()
    assert seen == expected


def test_a_moment_is_a_span_ago_or_a_time() -> None:
    now = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    assert Filters(since="90m", now=now).since_text() == "2026-11-28T10:30:00.000000Z"
    assert Filters(since="2026-11-28T12:00:00+02:00", now=now).since_text() == "2026-11-28T10:00:00.000000Z"
    assert Filters(until="1d", now=now).until_text() == (now - timedelta(days=1)).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )
    with pytest.raises(BadInputError):
        Filters(since="2026-11-28", now=now).question()


def test_folded_denials_show_how_many_they_are(recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[0])
    folded = {"count": 7, "last_id": "x", "last_time": "2026-11-28T10:00:00.000000Z"}
    assert "7 times until 2026-11-28 10:00:00.000" in tail.line({**entry, "folded": folded}).plain
    assert starter.AGENT in tail.line(entry).plain


def test_a_reader_of_the_log_loads_nothing_that_a_server_writes_it_with() -> None:
    heavy = ("grpc", "opentelemetry", "httpcore", "cryptography", "pydantic")
    look = f"import sys, signalwarden.decision_log.tail; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
