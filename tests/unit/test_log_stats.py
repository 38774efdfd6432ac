"""`log stats`: sums of real records, held to what the records say, in memory that does not grow."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signalwarden import starter
from signalwarden.cli.charts import bar, sparkline
from signalwarden.log_reading import stats
from signalwarden.log_reading.sums import MAX_BUCKETS, Histogram, Timeline, Top
from tests.commanding import Commands
from tests.recorded import MIX, Recorded


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    made = Recorded.starter(tmp_path / "refunds")
    for known in MIX:
        made.decide(known, count=3)
    made.decide({}, path="/nowhere")
    made.change("server_started", actor="server", version="0")
    made.transport("undelivered", count=4)
    return made.write()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], recorded: Recorded) -> Commands:
    return Commands(capfd, recorded.directory)


def test_the_sums_are_those_of_the_records(run: Commands, recorded: Recorded) -> None:
    records = [json.loads(line) for line in recorded.log.read_bytes().splitlines()]
    decisions = [entry for entry in records if entry["kind"] == "decision"]
    told = run("log", "stats", "--json").json()
    assert told["reasons"] == dict(Counter(entry["reason"] for entry in decisions))
    assert (told["decisions"]["allow"], told["decisions"]["deny"]) == (3, 13)
    assert (told["from"], told["to"]) == (min(e["time"] for e in records), max(e["time"] for e in records))
    assert (told["changes"], told["transport"]) == ({"server_started": 1}, {"undelivered": 4})
    assert told["skipped"]["count"] == 0
    totals = sorted(entry["timing_us"]["total"] for entry in decisions)
    assert told["latency_us"]["total"]["p50"] == pytest.approx(statistics.median_low(totals), rel=0.03)
    assert told["latency_us"]["total"]["max"] == round(totals[-1], 1)
    assert told["by"]["principal"]["top"][starter.AGENT]["count"] == 15
    posture = told["by"]["signal"]["top"]["posture"]
    assert posture["states"] == dict(
        Counter(s["state"] for e in decisions for s in e["signals"] if s["name"] == "posture")
    )
    decisive = sum(
        s.get("influence") == "decisive" for e in decisions for s in e["signals"] if s["name"] == "posture"
    )
    assert posture["influences"]["decisive"] == decisive
    assert sum(sum(told["timeline"][word]) for word in ("allow", "deny")) == 16


@pytest.mark.parametrize("by", ["principal", "action", "route", "reason", "signal"])
def test_decisions_are_told_apart_by_one_thing(run: Commands, by: str) -> None:
    told = run("log", "stats", "--by", by, "--json").json()["by"]
    assert list(told) == [by]
    counts = [entry["count"] for entry in told[by]["top"].values()]
    assert counts == sorted(counts, reverse=True)
    shown = run("log", "stats", "--by", by, "--top", "1")
    assert by in shown.out
    assert ("more: see --top" in shown.out) == (told[by]["keys"] > 1)


def test_filters_choose_what_is_summed_up(run: Commands) -> None:
    assert run("log", "stats", "--json", "--deny", "--signal", "posture:missing").json()["reasons"] == {
        "signal_unavailable": 6
    }
    assert run("log", "stats", "--until", "1h").out == "no records\n"


def test_people_see_bars_and_no_escapes_in_a_pipe(run: Commands) -> None:
    shown = run("log", "stats").out
    assert shown.startswith("16 decisions: 3 allowed, 13 denied\n")
    assert "█" in shown
    assert "\x1b" not in shown
    for expected in ("signal_unavailable", "evaluate", "refund.create", "device_trust", "undelivered"):
        assert expected in shown


def test_on_a_terminal_there_are_colours_and_a_bar(
    run: Commands, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = run("log", "stats")
    assert "\x1b[" in shown.out
    assert "reading" in shown.err
    assert "deciding" in run("log", "simulate", "--drop", "task_type").err
    assert "\x1b[" in run("log", "tail").out


def test_what_folded_records_stand_for_is_counted(run: Commands, recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[0])
    more = {
        "folded": {"count": 1_000, "last_id": "x", "last_time": entry["time"]},
        "refused_before": 7,
        "recovered": True,
    }
    recorded.lines = [json.dumps({**entry, **more}).encode()]
    recorded.write()
    told = run("log", "stats", "--json").json()
    assert (told["folded"], told["without_record"], told["recovered"]) == (999, 7, 1)
    assert told["reasons"]["signal_unavailable"] == 1_006
    assert "999 repeated denials are counted" in run("log", "stats").out


def test_bad_lines_are_skipped_named_and_counted(run: Commands, recorded: Recorded) -> None:
    with recorded.log.open("ab") as file:
        file.write(b"garbage\n\n{}\nmore garbage\n" + b'{"v":1,"kind":"decision","half')
    ran = run("log", "stats", "--json")
    assert ran.status == 0
    told = ran.json()["skipped"]
    assert told["count"] == 4
    assert told["by"] == {"half a line at the end, cut off or still being written": 1, "not JSON": 2,
                          "JSON, but no record: it has no `v` and `kind`": 1}  # fmt: skip
    assert told["first"][0] == {"file": str(recorded.log), "line": 19, "what": "not JSON"}
    assert f"skipped 2 lines: not JSON, the first at {recorded.log}:19" in ran.err


def test_a_foreign_file_is_refused_by_name(run: Commands, tmp_path: Path) -> None:
    for content in (b"\x7fELF\x02\x00\n\x00\n", b"{}\n" * 3, b"no line end at all", b"x" * (40 << 20)):
        other = tmp_path / "other"
        other.write_bytes(content)
        assert f"`{other}` is no decision log: line 1 is " in run("log", "stats", "--log", other).sentence
    assert "no such file" in run("log", "stats", "--log", tmp_path / "none").sentence
    assert "it is no file" in run("log", "stats", "--log", tmp_path).sentence


def test_no_log_and_an_empty_one_have_no_records(run: Commands, recorded: Recorded) -> None:
    recorded.log.write_bytes(b"")
    assert run("log", "stats").out == "no records\n"
    recorded.log.unlink()
    assert run("log", "stats").out == "no records\n"
    assert run("log", "stats", "--json").json()["decisions"]["count"] == 0


def test_hostile_names_are_only_text(run: Commands, recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[2])
    entry["request"]["action"] = "\x1b[2J\r[bold]x"
    recorded.lines = [json.dumps(entry).encode()]
    recorded.write()
    shown = run("log", "stats").out
    assert not set(shown) & {"\x1b", "\r"}
    assert "[bold]x" in shown


# ---- sums -----------------------------------------------------------------------------------------------------


def test_a_percentile_is_near_the_true_one() -> None:
    source = random.Random(7)
    numbers = sorted(source.lognormvariate(4, 1.5) for _ in range(20_000))
    histogram = Histogram()
    for number in numbers:
        histogram.add(number)
    for share in (0.5, 0.9, 0.99, 0.999):
        true = numbers[min(len(numbers) - 1, int(len(numbers) * share))]
        assert histogram.percentile(share) == pytest.approx(true, rel=0.03)
    assert Histogram().percentile(0.5) is None
    assert histogram.as_dict()["max"] == round(numbers[-1], 1)


def test_the_most_frequent_keys_are_kept_and_what_is_missed_is_bounded() -> None:
    top: Top[stats.Sum] = Top(stats.Sum, most=50)
    source = random.Random(11)
    true: Counter[str] = Counter()
    for _ in range(20_000):
        key = f"often-{source.randrange(5)}" if source.random() < 0.5 else f"rare-{source.randrange(10_000)}"
        true[key] += 1
        top.of(key).add("allow", 1, 1.0)
        assert len(top) <= 100
    for key, one in top.most_common(5):
        assert key.startswith("often-")
        assert true[key] - top.missed <= one.count <= true[key]
    assert top.missed > 0


def test_a_timeline_has_few_buckets_however_long_it_is() -> None:
    timeline = Timeline()
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for hour in range(5_000):
        timeline.add(begin + timedelta(hours=hour), "allow" if hour % 3 else "deny")
    assert len(timeline.series("allow")) <= MAX_BUCKETS
    assert sum(timeline.series("allow")) + sum(timeline.series("deny")) == 5_000
    assert timeline.as_dict()["width_s"] == timeline.width
    timeline.add(datetime(1970, 1, 1, tzinfo=UTC), "allow")
    assert len(timeline.series("allow")) <= MAX_BUCKETS


def test_bars_and_columns_show_that_something_is_more_than_nothing() -> None:
    assert bar(0, 10) == ""
    assert bar(0.0001, 10) == "▏"
    assert bar(10, 10, 4) == "████"
    assert sparkline([0, 1, 100]) == " ▁█"
    assert sparkline([]) == ""
    assert len(sparkline([1] * 119, 60)) == 60
