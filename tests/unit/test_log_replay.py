"""`log replay`, `log simulate`, `log brittleness`: what the core says of real records, told in groups, tables and pages."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from signalwarden import _core, config, starter
from signalwarden.cli import log_replay
from signalwarden.decision_log import now_us
from signalwarden.log_reading import flips, replaying
from signalwarden.log_reading.page import Page, bars, grid
from signalwarden.log_reading.records import Reader
from tests.commanding import Commands
from tests.recorded import MIX, Recorded

ALLOWED, LOW = 4, 3
PERMIT = "refund-agents-refund-from-trusted-devices"


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """Four allows, three denials for a low trust, and others; a change and a transport record between them."""
    made = Recorded.starter(tmp_path / "refunds")
    made.decide(MIX[2], count=ALLOWED)
    made.change("server_started", actor="server", version="0")
    made.decide(MIX[3], count=LOW)
    made.transport("undelivered", count=2)
    made.decide(MIX[4])
    made.decide({}, path="/nowhere")
    made.decide({}, method="GET", path="/v1/accounts/42", body="")
    return made.write()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], recorded: Recorded) -> Commands:
    return Commands(capfd, recorded.directory)


def changed(recorded: Recorded, old: str, new: str) -> Path:
    """A copy of the directory whose policies of refunds say something else."""
    other = recorded.directory.parent / "next"
    shutil.copytree(recorded.directory, other, dirs_exist_ok=True)
    policies = other / "policies" / "refunds.cedar"
    text = policies.read_text()
    assert old in text
    policies.write_text(text.replace(old, new))
    return other


def lines(out: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The flips and the summary of `--json`."""
    *found, summary = (json.loads(line) for line in out.splitlines())
    assert summary["kind"] == "summary"
    assert all(one["kind"] == "flip" for one in found)
    return found, summary


# ---- replay -------------------------------------------------------------------------------------------------


def test_against_itself_nothing_flips(run: Commands, recorded: Recorded) -> None:
    ran = run("log", "replay", "--against", recorded.directory, "--json")
    assert (ran.status, ran.err) == (0, "")
    found, summary = lines(ran.out)
    assert (found, summary["flips"], summary["decided"], summary["undecidable"]) == (
        [],
        0,
        ALLOWED + LOW + 3,
        {},
    )
    assert summary["skipped"] == {"change": 1, "transport": 1}


@pytest.mark.parametrize(
    ("old", "new", "direction", "number", "reasons"),
    [
        ("device_trust >= 3", "device_trust >= 5", "narrows", ALLOWED, "allowed → no_policy_permits"),
        ("device_trust >= 3", "device_trust >= 2", "widens", LOW, "no_policy_permits → allowed"),
    ],
)
def test_every_flip_is_listed_and_grouped_by_policy_and_signal(
    run: Commands, recorded: Recorded, old: str, new: str, direction: str, number: int, reasons: str
) -> None:
    other = changed(recorded, old, new)
    ran = run("log", "replay", "--against", other, "--json")
    assert ran.status == 1
    found, summary = lines(ran.out)
    assert len(found) == summary["flips"] == summary[direction] == number
    assert {(one["direction"], *one["policies"], *one["signals"]) for one in found} == {
        (direction, PERMIT, "device_trust")
    }
    (group,) = summary["groups"]
    assert (group["policy"], group["signal"], group["count"], group["reasons"]) == (
        PERMIT, "device_trust", number, {reasons: number}
    )  # fmt: skip
    assert group["callers"] == [{"principal": starter.AGENT, "action": "refund.create", "count": number}]
    assert group["examples"] == [one["decision_id"] for one in found][:5]
    shown = run("log", "replay", "--against", other, "--every")
    assert shown.status == 1
    assert shown.out.count(f"{direction:<8}  20") == number
    assert f"{direction:<8}{number}  {PERMIT}  device_trust" in shown.out


def test_filters_and_files_choose_what_is_decided(run: Commands, recorded: Recorded, tmp_path: Path) -> None:
    other = changed(recorded, "device_trust >= 3", "device_trust >= 5")
    ran = run("log", "replay", "--against", other, "--json", "--deny")
    assert (ran.status, lines(ran.out)[1]["decided"]) == (0, LOW + 2)
    packed = recorded.rotate(1, compressed=True)
    moved = packed.rename(tmp_path / "kept.jsonl.gz")
    assert len(lines(run("log", "replay", "--against", other, "--json", "--log", moved).out)[0]) == ALLOWED


def test_what_a_forbid_does_is_its_doing(run: Commands, recorded: Recorded) -> None:
    other = changed(recorded, "@id(\"no-refund-above-500\")", '@id("no-refunds")\nforbid (principal, action == '
                    'Action::"refund.create", resource);\n\n@id("no-refund-above-500")')  # fmt: skip
    found, summary = lines(run("log", "replay", "--against", other, "--json").out)
    assert {tuple(one["policies"]) for one in found} == {("no-refunds",)}
    assert {tuple(one["signals"]) for one in found} == {()}
    assert summary["groups"][0]["signal"] == "-"
    assert summary["other_reason"] == [{"was": "no_policy_permits", "now": "policy_denied", "count": LOW}]


def test_bad_lines_are_named_and_the_rest_is_decided(run: Commands, recorded: Recorded) -> None:
    with recorded.log.open("ab") as file:
        file.write(b'garbage\n{"v":2,"kind":"decision"}\n{"v":1,"kind":"decision","x":1}\n{"v":1,"kind":"dec')
    ran = run("log", "replay", "--against", recorded.directory, "--json")
    summary = lines(ran.out)[1]
    assert ran.status == 0
    assert summary["decided"] == ALLOWED + LOW + 3
    assert sum(summary["bad"].values()) == 1
    assert summary["lines_skipped"]["count"] == 3
    for said in (
        "not JSON, the first at",
        "a record of version 2",
        "half a line at the end",
        "the core can't read",
    ):
        assert said in ran.err


def test_what_can_not_be_read_or_decided_is_one_sentence(
    run: Commands, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "can't be loaded" in run("log", "replay", "--against", tmp_path / "none").sentence
    other = tmp_path / "other"
    other.write_text("a foreign file\n")
    replay = ("log", "replay", "--against", recorded.directory)
    assert "is no decision log" in run(*replay, "--log", other).sentence
    assert "can't be written" in run(*replay, "--html", tmp_path / "none" / "x.html").sentence

    class Blind:
        def decide(self, text: bytes, *, changes: bytes | None = None) -> bytes:
            return b'{"decision_id":"x","undecidable":"a value is withheld"}\n' * text.count(b"\n")

    monkeypatch.setattr(log_replay, "_decider", lambda _: Blind())
    assert "none of 12 decisions could be made again; of 12: a value is withheld" in run(*replay).sentence


def test_blocks_are_decided_by_several_threads_in_their_order(recorded: Recorded) -> None:
    recorded.lines = recorded.log.read_bytes().splitlines() * 300
    recorded.write()
    loaded = config.load(recorded.directory, now_us())
    replay = replaying.decider(loaded.configuration)
    reader = Reader([recorded.log])
    sums, found = flips.simulated(
        reader, replay, [{"name": "device_trust", "value": 2}], loaded.described(), jobs=4
    )
    times = [flip.record["decision_id"] for flip in found]
    again = Reader([recorded.log])
    expected = [e.record["decision_id"] for e in again.entries() if e.record.get("outcome") == "allow"
                and e.record["request"]["action"] == "refund.create"]  # fmt: skip
    assert times == expected
    assert sums.tally.decided == (ALLOWED + LOW + 3) * 301


# ---- simulate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "widens", "narrows"),
    [
        ("--drop posture", 0, ALLOWED),
        ("--stale device_trust", 0, ALLOWED),
        ("--set device_trust=5", LOW, 0),
        ("--set posture=compromised", 0, ALLOWED),
        ("--set posture=ok", 1, 0),
        ("--drop task_type", 0, 0),
        ("--set task_type=reporting", 0, ALLOWED),
        ("--set device_trust=5 --set posture=ok --drop task_type", LOW + 1, 0),
    ],
)
def test_a_simulation_flips_what_the_change_alone_flips(
    run: Commands, options: str, widens: int, narrows: int
) -> None:
    ran = run("log", "simulate", *options.split(), "--json")
    assert ran.err == ""
    _, summary = lines(ran.out)
    assert (summary["widens"], summary["narrows"]) == (widens, narrows)
    assert ran.status == int(bool(widens or narrows))


def test_what_the_directory_changed_since_is_no_part_of_a_simulation(
    run: Commands, recorded: Recorded
) -> None:
    other = changed(recorded, "device_trust >= 3", "device_trust >= 5")
    ran = run("log", "simulate", "--drop", "task_type", "--config", other, "--log", recorded.log, "--json")
    assert (ran.status, lines(ran.out)[1]["flips"]) == (0, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "nothing to simulate"),
        ("--drop postur", "did you mean `posture`?"),
        ("--set posture", "expected SIGNAL=VALUE"),
        ("--set posture=fine", "`posture`: expected a value of type"),
        ("--set device_trust=high", "`device_trust`: expected a value of type"),
        ("--stale task_type", "never stale"),
        ("--drop posture --set posture=ok", "changed twice"),
    ],
)
def test_a_change_that_can_not_be_made_is_one_sentence(run: Commands, options: str, said: str) -> None:
    assert said in run("log", "simulate", *options.split()).sentence


# ---- brittleness --------------------------------------------------------------------------------------------


def test_what_hangs_on_each_signal_is_counted_by_principal_and_action(run: Commands) -> None:
    ran = run("log", "brittleness", "--json")
    assert (ran.status, ran.err) == (0, "")
    told = ran.json()
    by = {loss["name"]: loss for loss in told["losses"]}
    for name in ("device_trust", "posture", starter.PUBLISHER):
        assert (by[name]["allows"], by[name]["would_deny"]) == (ALLOWED, ALLOWED), name
        assert by[name]["callers"] == [
            {"principal": starter.AGENT, "action": "refund.create", "allows": ALLOWED, "would_deny": ALLOWED}
        ]
        assert by[name]["reasons"] == {"signal_unavailable": ALLOWED}
    assert (by["task_type"]["would_deny"], by["task_type"]["callers"]) == (0, [])
    assert (by[starter.PUBLISHER]["kind"], by[starter.PUBLISHER]["signals"]) == (
        "feed",
        ["device_trust", "posture"],
    )
    assert told["allows"] == ALLOWED + 1
    assert told["never_decisive"] == ["task_type"]
    shown = run("log", "brittleness").out
    assert f"{ALLOWED} of {ALLOWED}  {starter.AGENT}  refund.create" in shown
    assert "read, and never decisive in this period: task_type" in shown


def test_a_signal_that_nothing_reads_is_named(run: Commands) -> None:
    told = run("log", "brittleness", "--json", "--action", "account.read").json()
    assert told["never_read"] == ["device_trust", "posture", "task_type"]
    assert told["never_decisive"] == []


def test_decisive_is_what_the_replay_finds_where_the_log_does_not_say(
    run: Commands, recorded: Recorded
) -> None:
    records = [json.loads(line) for line in recorded.log.read_bytes().splitlines()]
    for record in records:
        for signal in record.get("signals", []):
            signal.pop("influence", None)
    before = run("log", "brittleness", "--json").json()["losses"]
    recorded.log.write_bytes(b"".join(json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in records))
    after = run("log", "brittleness", "--json").json()["losses"]
    assert [(loss["name"], loss["decisive"]) for loss in before] == [
        (loss["name"], loss["decisive"]) for loss in after
    ]


# ---- pages --------------------------------------------------------------------------------------------------


class Outside(HTMLParser):
    """What of a page a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("script", "link", "img", "iframe", "object", "embed", "base", "form"):
            self.found.append(tag)
        self.found += [f"{tag} {name}" for name, value in attrs
                       if name in ("src", "href", "xlink:href", "action") or name.startswith("on") or "url(" in (value or "")]  # fmt: skip


def outside(page: str) -> list[str]:
    parser = Outside()
    parser.feed(page)
    assert parser.tags[0] == "html"
    return parser.found


def test_a_page_has_plots_and_fetches_nothing(run: Commands, recorded: Recorded, tmp_path: Path) -> None:
    other = changed(recorded, "device_trust >= 3", "device_trust >= 5")
    page = tmp_path / "page.html"
    for verb in (("replay", "--against", other), ("simulate", "--drop", "posture"), ("brittleness",)):
        ran = run("log", *verb, "--html", page)
        assert f"wrote {page}" in ran.err
        text = page.read_text()
        assert page.stat().st_mode & 0o777 == 0o600
        assert outside(text) == []
        assert "<svg" in text
        assert "default-src 'none'" in text
        assert "http" not in text.replace("http-equiv", "")
        assert starter.AGENT in text


def test_text_of_records_is_only_text_on_a_page() -> None:
    hostile = "<script>alert(1)</script>\"'&\u202e\x00"
    page = Page(hostile, hostile)
    page.section(hostile, hostile)
    page.table([hostile], [[hostile]])
    page.plot(bars(hostile, [(hostile, 3, 1)]))
    page.plot(grid(hostile, [hostile], [hostile], {(hostile, hostile): (1, 2)}))
    text = page.html()
    assert outside(text) == []
    assert not set(text) & {"\u202e", "\x00"}


def test_this_build_can_decide_again() -> None:
    assert hasattr(_core, "Replay")
