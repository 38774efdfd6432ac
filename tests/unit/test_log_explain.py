"""`log explain`: the story of real records, found by id, and what an operator can do about each reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from signalwarden import _core, starter
from signalwarden.log_reading import changes, explaining, story
from signalwarden.log_reading.beside import Beside
from signalwarden.log_reading.runbook import RUNBOOK
from tests.commanding import Commands
from tests.pages import text_of
from tests.recorded import MIX, Recorded

SCHEMA: Any = json.loads(text_of("docs/schema/decision-record.schema.json"))


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded.starter(tmp_path / "refunds")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], recorded: Recorded) -> Commands:
    return Commands(capfd, recorded.directory)


def answering(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
    """As a core that says so of every record."""

    class Replay:
        def __init__(self, _configuration: object) -> None: ...

        def explain(self, _line: bytes) -> bytes:
            return json.dumps(answer).encode()

    class Core:
        def __getattr__(self, name: str) -> Any:
            return Replay if name == "Replay" else getattr(_core, name)

    monkeypatch.setattr(explaining, "_core", Core())


# ---- the story ----------------------------------------------------------------------------------------------


def test_a_denial_tells_its_way_from_the_request_to_the_answer(run: Commands, recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[1])
    recorded.write()
    told = run("log", "explain", entry["decision_id"])
    assert (told.status, told.err) == (0, "")
    steps = [line.split()[0] for line in told.out.splitlines() if line[:1].isalpha()]
    assert steps == ["decision", "deny", "asked", "route", "who", "grant", "signals", "policies", "approval", "answer",
                     "decided", "would", "to", "look"]  # fmt: skip
    for expected in (
        "POST payments.prod.example/v1/accounts/42/refunds",
        "with amount=1250",
        'refund.create on Account::"42"',
        "routes.yaml:11, system payments, tier runtime, sensitivity high",
        '   11 │ - match: {host: "*", method: POST, path: "/v1/accounts/{account}/refunds"}',
        starter.AGENT,
        "proven by the certificate of the connection, which Envoy verified, bound to the connection",
        " s old, authoritative, from push:spiffe://prod.example/ns/signals/sa/publisher",
        "posture: missing, authoritative  DECISIVE",
        "team-detection@prod.example answers for it",
        "forbid compromised-workloads-refund-nothing may apply  policies/refunds.cedar:14",
        '   21 │ { context.signals has posture && context.signals.posture == "compromised" };',
        "deny, signal_unavailable, HTTP 403",
        "`posture` is missing: what it would say decides",
        RUNBOOK["signal_unavailable"],
        "signalwarden signals show posture",
    ):
        assert expected in told.out, expected
    assert "   22 │" not in told.out


@pytest.mark.parametrize(
    ("known", "changed", "reason", "decided"),
    [
        (MIX[2], {}, "allowed", "it rests on `device_trust` = 4: without it the answer would be another"),
        (MIX[3], {}, "no_policy_permits", "`device_trust` = 2 keeps a permit from it"),
        (MIX[4], {}, "policy_denied", 'because of `posture` = "compromised"'),
        (MIX[2], {"body": '{"amount": 99999}'}, "policy_denied", "the forbid `no-refund-above-500`"),
        ({}, {"path": "/nowhere"}, "route_unknown", "no route matches host, path, method"),
        ({}, {"principal": ""}, "identity_missing", "the peer of the connection"),
        ({}, {"body": "{"}, "malformed_request", ""),
    ],
)
def test_what_decided_it_is_said(
    run: Commands,
    recorded: Recorded,
    known: dict[str, Any],
    changed: dict[str, Any],
    reason: str,
    decided: str,
) -> None:
    (entry,) = recorded.decide(known, **changed)
    recorded.write()
    told = run("log", "explain", entry["decision_id"], "--json").json()
    assert (told["reason"], told["record"]) == (reason, entry)
    assert any(decided in said for said in told["decided_by"]), told["decided_by"]
    assert told["runbook"] == RUNBOOK[reason]


def test_a_permit_that_a_signal_keeps_away_is_shown_with_its_lines(run: Commands, recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[3])
    recorded.write()
    told = run("log", "explain", entry["decision_id"]).out
    assert "permit refund-agents-refund-from-trusted-devices reads them  policies/refunds.cedar:4" in told
    assert "   10 │ when { context.signals has device_trust && context.signals.device_trust >= 3 };" in told


def test_of_another_revision_no_line_is_shown(run: Commands, recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[1])
    recorded.write()
    with (recorded.directory / "policies" / "refunds.cedar").open("a") as file:
        file.write("\n// another day\n")
    told = run("log", "explain", entry["decision_id"]).out
    assert told.count("the directory is at another revision now") == 2
    assert "would flip  not known: the directory is at another revision now" in told
    assert "│" not in told
    (recorded.directory / "routes.yaml").write_text("routes: [\n")
    assert "the directory can't be loaded now" in run("log", "explain", entry["decision_id"]).out


def test_a_record_is_told_from_its_line_alone(
    capfd: pytest.CaptureFixture[str], recorded: Recorded, tmp_path: Path
) -> None:
    (entry,) = recorded.decide(MIX[1])
    run = Commands(capfd, tmp_path)
    told = run("log", "explain", "-", stdin=recorded.lines[0] + b"\n")
    assert "there is no directory to look into" in told.out
    assert f"decision {entry['decision_id']}" in told.out
    pretty = json.dumps(entry, indent=2).encode()
    assert run("log", "explain", "-", "--json", stdin=pretty).json()["record"] == entry


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not JSON"),
        (b"{}", "it has no `v` and `kind`"),
        (b'{"v":1,"kind":"decision"', "not JSON"),
        (b"a\nb", "not one record"),
        (b'{"v":7,"kind":"decision"}', "version 7, this program reads 1"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "it has no `v` and `kind`"),
    ],
)
def test_what_is_no_record_is_one_sentence(run: Commands, text: bytes, said: str) -> None:
    assert said in run("log", "explain", "-", stdin=text).sentence


@pytest.mark.parametrize("broken", ["request", "principal", "signals", "policies", "grant", "chain", "approval", "timing_us",
                                    "time", "outcome", "reason", "decision_id"])  # fmt: skip
@pytest.mark.parametrize("value", [None, 3, "text\x1b[2J", [1], {"x": 1}])
def test_a_record_of_another_shape_is_told_as_far_as_it_goes(
    recorded: Recorded, run: Commands, broken: str, value: object
) -> None:
    (entry,) = recorded.decide(MIX[1])
    told = run("log", "explain", "-", stdin=json.dumps({**entry, broken: value}).encode())
    assert (told.status, told.err) == (0, "")
    assert "\x1b" not in told.out


def test_grant_chain_approval_override_and_tokens_have_their_lines(recorded: Recorded, run: Commands) -> None:
    (entry,) = recorded.decide(MIX[2])
    parent = "spiffe://prod.example/orchestrator"
    entry["grant"] = {
        "sha256": "0" * 64,
        "task": "t-1",
        "type": "invoice_run",
        "workflow": "month-end",
        "expires_at": "2026-11-28T10:00:00.000000Z",
        "bound": True,
    }
    entry["chain"] = {
        "depth": 1,
        "root": parent,
        "tasks": ["t-1", "t-0"],
        "principals": [starter.AGENT, parent],
        "systems": ["erp", "mail"],
        "sensitivity": "high",
    }
    entry["approval"] = {
        "id": "q-1",
        "state": "approved",
        "approved_by": ["spiffe://prod.example/treasurer"],
        "body_sha256": "0" * 64,
        "words": ["more than 10000"],
        "expires_at": "2026-11-28T10:00:00.000000Z",
    }
    entry["principal"] |= {
        "source": "oauth",
        "tokens": [
            {
                "class": "access_token",
                "issuer": "https://idp",
                "subject": "c-7",
                "key_id": "k1",
                "expires_at": "2026-11-28T10:00:00.000000Z",
            }
        ],
        "interactive": True,
    }
    entry["signals"][0] |= {
        "company": "alone",
        "override": {
            "by": ["a", "b"],
            "reason": "INC-7",
            "was": "stale",
            "expires_at": "2026-11-28T10:00:00.000000Z",
        },
    }
    entry["policies"] |= {
        "observed": [
            {"id": "tried", "effect": "forbid", "file": "policies/x.cedar", "line": 3, "applies": "certain"}
        ],
        "would": "policy_denied",
        "errors": [{"id": "broken", "error": "overflow"}],
    }
    entry |= {"enforced": False, "refused_before": 3, "recovered": True}
    told = run("log", "explain", "-", stdin=json.dumps(entry).encode()).out
    for expected in (
        "task t-1, invoice_run, of the workflow month-end, until 2026-11-28T10:00:00.000000Z",
        f"handed on 1 time: {starter.AGENT} ← {parent}",
        "its tree had touched erp, mail, high at most",
        "q-1 is approved, yes from spiffe://prod.example/treasurer",
        "demanded: more than 10000",
        "proven by an OAuth token that was validated here",
        "access token of https://idp, subject c-7, key k1",
        "a human at the origin",
        "stands alone, so policies see it absent",
        "overridden by a and b while stale",
        "observing only: forbid tried applies  policies/x.cedar:3",
        "were the observing ones enforced: policy_denied",
        "broken failed: overflow",
        "let pass all the same",
        "3 decisions before it have no record",
        "recovered after the server had died",
    ):
        assert expected in told, expected


# ---- finding ------------------------------------------------------------------------------------------------


def test_a_beginning_of_an_id_finds_its_record_in_any_file(run: Commands, recorded: Recorded) -> None:
    (old,) = recorded.decide(MIX[1])
    recorded.write().rotate(1, compressed=True)
    (new,) = recorded.decide(MIX[2])
    recorded.write()
    for entry in (old, new):
        assert run("log", "explain", entry["decision_id"][:20], "--json").json()["record"] == entry
        assert run("log", "explain", entry["decision_id"].upper(), "--json").json()["record"] == entry
    several = run("log", "explain", old["decision_id"][:6]).sentence
    assert "begins several ids" in several
    assert old["decision_id"] in several


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("01a", "at least 4 characters"),
        ("not-an-id", "is no id of a record"),
        ("ffffffff-0000", "no record of the log has an id that begins with"),
    ],
)
def test_an_id_that_finds_nothing_is_one_sentence(
    run: Commands, recorded: Recorded, asked: str, said: str
) -> None:
    recorded.decide(MIX[2])
    recorded.write()
    assert said in run("log", "explain", asked).sentence


def test_a_folded_record_is_found_by_its_last_id(run: Commands, recorded: Recorded) -> None:
    first, last = recorded.decide(MIX[0], count=2)
    folded = {**first, "folded": {"count": 9, "last_id": last["decision_id"], "last_time": last["time"]}}
    recorded.lines = [json.dumps(folded).encode()]
    recorded.write()
    assert f"the same 9 times until {last['time']}" in run("log", "explain", last["decision_id"]).out


def test_a_change_that_names_a_decision_is_told_with_it(run: Commands, recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[2])
    recorded.change("approval_used", actor=starter.AGENT, approval_id="q-1", approved_by=[], asked={},
                    decision_id=entry["decision_id"])  # fmt: skip
    recorded.write()
    told = run("log", "explain", entry["decision_id"]).out
    assert "and then" in told
    assert f"the yes to q-1 was used by the decision {entry['decision_id']}" in told


def test_another_kind_of_file_is_refused(run: Commands, recorded: Recorded, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("not a log\n")
    assert (
        "is no decision log: line 1 is not JSON" in run("log", "explain", "01a2ffff", "--log", other).sentence
    )
    assert "no such file" in run("log", "explain", "01a2ffff", "--log", tmp_path / "none").sentence


# ---- what would flip it -------------------------------------------------------------------------------------


SINGLE = {"what": "signal", "name": "posture", "was": "missing", "from": None, "to": "ok", "outcome": "allow",
          "reason": "allowed"}  # fmt: skip
LOST = {"what": "signal", "name": "task_type", "was": "fresh", "from": "reporting", "state": "missing", "outcome": "allow",
        "reason": "allowed"}  # fmt: skip
THRESHOLD = {
    "name": "device_trust",
    "value": 4,
    "flips_at": 2,
    "to_outcome": "deny",
    "to_reason": "no_policy_permits",
}


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        ({"same": True, "smallest_change": [SINGLE]}, '`posture` = "ok" in place of missing: then `allowed`'),
        ({"same": True, "smallest_change": [LOST]}, '`task_type` missing in place of "reporting": then `allowed`'),
        ({"same": True, "smallest_change": [{"what": "grant", "outcome": "allow", "reason": "allowed"}]},
         "a live grant that covers the call: then `allowed`"),
        ({"same": True, "smallest_change": [{"what": "approval", "outcome": "allow", "reason": "allowed"}]},
         "a yes to this very call: then `allowed`"),
        ({"same": True, "smallest_change": [], "smallest_pairs": [{"changes": [SINGLE, LOST], "reason": "allowed"}]},
         '`posture` = "ok" in place of missing and `task_type` missing in place of "reporting": then `allowed`'),
        ({"same": True, "thresholds": [THRESHOLD]}, "`device_trust` was 4: at 2 it is `no_policy_permits`"),
        ({"same": True, "minimal_sets": [["a", "b"]]}, "no one of them alone, but `a` and `b` together decide"),
        ({"same": True, "undecidable": "a value is secret"}, "a value is secret"),
        ({"same": False, "now": {"reason": "allowed"}}, "decided again with this directory it is `allowed`"),
        ({"same": True, "as_it_was": "who asked is taken as recorded"}, "who asked is taken as recorded"),
        ({"same": True, "cut": True}, "there may be more"),
        ({"same": True}, "no change of one or two signals"),
        ({"bad": "no record"}, "not known: no record"),
    ],
)  # fmt: skip
def test_what_a_replay_says_is_told_in_words(
    run: Commands, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, analysis: dict[str, Any], said: str
) -> None:
    answering(monkeypatch, analysis)
    recorded.decide(MIX[1])
    told = run("log", "explain", "-", "--json", stdin=recorded.lines[0]).json()
    assert any(said in one for one in told["would_flip"]), told["would_flip"]


@pytest.mark.parametrize(
    ("known", "changed", "said"),
    [
        (
            MIX[0],
            {},
            '`device_trust` = 3 in place of missing and `posture` = "ok" in place of missing: then `allowed`',
        ),
        (MIX[1], {}, '`posture` = "ok" in place of missing: then `allowed`'),
        (MIX[2], {}, "`device_trust` was 4: at 2 it is `no_policy_permits`"),
        (MIX[2], {}, "`posture` lost: then it is denied"),
        (MIX[3], {}, "`device_trust` = 3 in place of 2: then `allowed`"),
        (MIX[4], {}, '`posture` = "ok" in place of "compromised": then `allowed`'),
        (MIX[2], {"body": '{"amount": 99999}'}, "no change of one or two signals"),
        (
            MIX[2],
            {"headers": {"x-task-type": "reporting"}},
            '`task_type` missing in place of "reporting": then `allowed`',
        ),
    ],
)
def test_the_smallest_change_is_told_of_real_records(
    run: Commands, recorded: Recorded, known: dict[str, Any], changed: dict[str, Any], said: str
) -> None:
    recorded.decide(known, **changed)
    assert said in run("log", "explain", "-", stdin=recorded.lines[0]).out


def test_what_each_signal_did_is_found_again_where_the_record_does_not_say(
    run: Commands, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {"same": True, "influence": {"posture": "decisive", "device_trust": "consulted"}})
    (entry,) = recorded.decide(MIX[1])
    for signal in entry["signals"]:
        del signal["influence"]
    line = json.dumps({**entry, "influence_shed": True}).encode()
    told = run("log", "explain", "-", stdin=line).out
    assert "posture: missing, authoritative  DECISIVE" in told
    assert "was not computed" not in told
    answering(monkeypatch, {"same": False, "influence": {"posture": "decisive"}})
    assert "what each did was not computed" in run("log", "explain", "-", stdin=line).out


# ---- changes, and completeness ------------------------------------------------------------------------------


def test_every_reason_has_a_story_and_a_line_of_what_to_do(recorded: Recorded) -> None:
    (entry,) = recorded.decide(MIX[1])
    for code, _, _, live, sentence in _core.reasons():
        told = story.decision({**entry, "reason": code}, Beside.nothing(), None, "not known")
        assert told.sentence == sentence
        assert told.runbook == RUNBOOK[code]
        assert told.decided
        assert not live or len(RUNBOOK[code]) > 5


def test_every_change_and_transport_has_a_sentence() -> None:
    known = set(SCHEMA["$defs"]["change"]["properties"]["change"]["enum"])
    assert set(changes.SENTENCES) == known
    transports = set(SCHEMA["$defs"]["transport"]["properties"]["transport"]["enum"])
    assert set(changes.TRANSPORTS) == transports
    for what in known:
        assert "{" not in changes.sentence({"kind": "change", "change": what})
    assert (
        changes.sentence({"kind": "change", "change": "of another day"}) == "a change record: of another day"
    )


def test_a_change_is_told_by_its_id(run: Commands, recorded: Recorded) -> None:
    words = [
        {"part": "signal", "name": "posture", "direction": "widens", "sentence": "posture may be absent"}
    ]
    made = recorded.change("configuration_loaded", actor="SIGHUP", revision="ab" * 32, words=words,
                           difference={"signals": {"added": ["posture"], "removed": []}})  # fmt: skip
    recorded.write()
    told = run("log", "explain", made["change_id"]).out
    for expected in (
        "SIGHUP loaded revision abababababab",
        "widens: signal: posture may be absent",
        "signals: added posture",
    ):
        assert expected in told
    assert run("log", "explain", made["change_id"], "--json").json()["record"] == made
    sent = recorded.transport("undelivered", count=3)
    recorded.write()
    assert "3 Check calls never arrived whole" in run("log", "explain", sent["event_id"]).out
