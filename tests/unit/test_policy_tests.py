"""Tests of policies: what a case can give, what it can expect, and what is said where it is not so."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from signalwarden import starter
from signalwarden.policy_tests import suite
from signalwarden.policy_tests.requests import MAX_REQUEST_BYTES
from tests import casebooks
from tests.casebooks import AGENT, CASES, OTHER, REQUEST, SENDER, made, ran

EXAMPLES = sorted(
    path.parent for path in (Path(__file__).parents[2] / "docs/examples").glob("*/signalwarden.yaml")
)
GOOD = {"score": 4, "posture": "ok"}
ALLOWED = {"outcome": "allow"}


def case(**other: Any) -> dict[str, Any]:
    return {"name": "a case", "request": REQUEST, "signals": GOOD, "expect": ALLOWED, **other}


def told(tmp_path: Path, *cases: dict[str, Any]) -> list[str]:
    """What is said of one case, or of each."""
    return [one for lines in ran(made(tmp_path, [*cases])).told.values() for one in lines]


# ---- the templates ----------------------------------------------------------------------------------------


# What is made around policies of somebody else (`opa-envoy`) has no cases: what they should say only their author knows.
@pytest.mark.parametrize("template", [name for name in get_args(starter.Template) if name != "opa-envoy"])
def test_the_cases_of_each_template_pass_and_leave_nothing_uncovered(
    template: starter.Template, tmp_path: Path
) -> None:
    starter.create_from(template, tmp_path / "made", now=datetime.now(UTC))
    run = ran(tmp_path / "made")
    assert {name: lines for name, lines in run.told.items() if lines} == {}
    assert run.coverage.gaps() == []
    assert run.coverage.percent == 100.0
    assert all(run.coverage.routes.values())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_cases_of_each_example_pass_and_leave_nothing_uncovered(example: Path) -> None:
    run = ran(example)
    assert {name: lines for name, lines in run.told.items() if lines} == {}
    assert run.coverage.gaps() == []
    assert all(run.coverage.routes.values())


# ---- what a case gives and expects ------------------------------------------------------------------------


def test_a_case_that_is_as_expected_passes(tmp_path: Path) -> None:
    expect = {
        "outcome": "allow", "reason": "allowed", "http_status": 200, "enforced": True, "determining": ["readers-read"],
        "decisive": ["posture", "score"], "refused": [], "signals": {"score": "fresh", "posture": "fresh"},
    }  # fmt: skip
    assert told(tmp_path, case(expect=expect)) == []


def test_each_difference_is_told_with_both_sides(tmp_path: Path) -> None:
    expect = {
        "reason": "policy_denied", "http_status": 403, "enforced": False, "determining": ["the-bad-do-not"],
        "decisive": [], "refused": ["score"], "signals": {"score": "stale"},
    }  # fmt: skip
    assert told(tmp_path, case(expect=expect)) == [
        "outcome: deny / allow",
        "reason: policy_denied / allowed",
        "http_status: 403 / 200",
        "enforced: false / true",
        "determining: the-bad-do-not / readers-read",
        "decisive: none / posture, score",
        "refused: score / none",
        "signal score: stale / fresh",
    ]


@pytest.mark.parametrize(
    ("given", "reason", "state"),
    [
        ({"score": {"value": 4, "age": "4m"}}, "allowed", "fresh"),
        ({"score": {"value": 4, "age": "6m"}}, "signal_unavailable", "stale"),
        ({"score": {"value": 4, "state": "stale"}}, "signal_unavailable", "stale"),
        ({"score": {"state": "missing"}}, "signal_unavailable", "missing"),
        ({"score": {"value": 4, "state": "unverified"}}, "signal_unavailable", "unverified"),
        ({"score": {"value": 4, "by": OTHER}}, "signal_unavailable", "missing"),
        ({"score": {"value": 4, "subject": OTHER}}, "signal_unavailable", "missing"),
        ({"score": 2}, "no_policy_permits", "fresh"),
    ],
)
def test_a_signal_is_as_old_and_from_whom_the_case_says(
    given: dict[str, Any], reason: str, state: str, tmp_path: Path
) -> None:
    expect = {"reason": reason, "signals": {"score": state}}
    assert told(tmp_path, case(signals={**GOOD, **given}, expect=expect)) == []


def test_two_values_of_one_age_are_disputed(tmp_path: Path) -> None:
    signals = [
        {"name": "posture", "value": "ok"},
        *({"name": "score", "value": v, "age": "1s"} for v in (4, 5)),
    ]
    expect = {"reason": "signal_unavailable", "signals": {"score": "disputed"}}
    assert told(tmp_path, case(signals=signals, expect=expect)) == []


def test_a_case_has_its_own_time(tmp_path: Path) -> None:
    assert told(tmp_path, case(at="2026-11-24T10:00:00Z")) == []


def test_a_request_may_be_a_whole_check_request(tmp_path: Path) -> None:
    http = {
        "method": "GET",
        "host": "pages.example",
        "path": "/home",
        "protocol": "HTTP/2",
        "scheme": "https",
    }
    attributes = {"source": {"principal": AGENT}, "request": {"http": http}}
    root = made(
        tmp_path,
        [
            case(name="inline", request={"attributes": attributes}),
            case(
                name="changed",
                request={"attributes": attributes, "path": "/other"},
                expect={"reason": "route_unknown"},
            ),
        ],
    )
    assert ran(root).told == {"inline": [], "changed": []}


def test_a_request_may_stand_in_a_file_of_the_directory(tmp_path: Path) -> None:
    sample = '{"attributes": {"source": {"principal": "%s"}, "request": {"http": {"method": "GET", "host": "pages.example", "path": "/home", "protocol": "HTTP/2"}}}}'
    root = made(
        tmp_path,
        [
            case(name="as it is", request={"file": "samples/one.json"}),
            case(name="another caller", request={"file": "samples/one.json", "principal": OTHER}, expect={"reason": "no_policy_permits"}),
            case(name="elsewhere", request={"file": "../one.json"}),
            case(name="nowhere", request={"file": "samples/two.json"}),
        ],
        **{"samples/one.json": sample % AGENT},
    )  # fmt: skip
    said = ran(root).told
    assert said["as it is"] == said["another caller"] == []
    assert said["elsewhere"] == ["`request.file`: `../one.json` leads out of the directory"]
    assert said["nowhere"] == ["`request.file`: `samples/two.json` can't be read: no such file or directory"]


@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_a_file_holds_nothing_up(tmp_path: Path) -> None:
    root = made(tmp_path, [case(name="piped", request={"file": "samples/pipe.json"})])
    (root / "samples").mkdir()
    os.mkfifo(root / "samples/pipe.json")
    assert ran(root).told == {
        "piped": ["`request.file`: `samples/pipe.json` can't be read: expected a regular file"]
    }
    os.mkfifo(root / "tests/more.yaml")
    assert casebooks.findings(root) == [
        "tests/more.yaml:0:0 unreadable the file can't be read: expected a regular file"
    ]


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    root = made(tmp_path, [case(name="huge", request={"file": "samples/huge.json"})])
    (root / "samples").mkdir()
    for name, limit in (("samples/huge.json", MAX_REQUEST_BYTES), ("tests/more.yaml", suite.MAX_FILE_BYTES)):
        with (root / name).open("wb") as file:
            file.truncate(limit + 1)
    bound = f"tests/more.yaml:0:0 too_large the file has more than {suite.MAX_FILE_BYTES} bytes"
    assert casebooks.findings(root) == [bound]
    (root / "tests/more.yaml").unlink()
    why = f"can't be read: the file has more than {MAX_REQUEST_BYTES} bytes"
    assert ran(root).told == {"huge": [f"`request.file`: `samples/huge.json` {why}"]}


def test_a_caller_without_identity_is_one_on_purpose(tmp_path: Path) -> None:
    without = {key: value for key, value in REQUEST.items() if key != "principal"}
    nobody = case(
        name="nobody", request={**without, "principal": None}, expect={"reason": "identity_missing"}
    )
    forgot = case(name="forgot", request=without)
    said = ran(made(tmp_path, [nobody, forgot])).told
    assert said["nobody"] == []
    assert said["forgot"] == [
        "`request`: expected `principal`, or `principal: null` for a caller without identity"
    ]


def test_what_a_case_gives_and_nobody_takes_is_said(tmp_path: Path) -> None:
    (said,) = told(tmp_path, case(signals={**GOOD, "score": "many"}))
    assert said.startswith("the signal `score` is refused: ")
    assert said.endswith("(`wrong_type`)")


# ---- variations -------------------------------------------------------------------------------------------


def test_variations_say_what_is_other_than_in_their_case(tmp_path: Path) -> None:
    each = [
        {"name": "another", "request": {"principal": OTHER}, "expect": {"reason": "no_policy_permits"}},
        {"name": "bad", "signals": {"posture": "bad"}, "expect": {"reason": "policy_denied"}},
    ]
    root = made(tmp_path, [case(each=each), {**case(name="a frame", each=each), "expect": None}][:1])
    assert ran(root).told == {"a case": [], "a case > another": [], "a case > bad": []}


def test_a_case_without_expectation_is_the_frame_of_its_variations(tmp_path: Path) -> None:
    frame = {key: value for key, value in case().items() if key != "expect"}
    each = [{"name": "good", "expect": ALLOWED}]
    assert ran(made(tmp_path, [{**frame, "each": each}])).told == {"a case > good": []}


def test_defaults_stand_below_every_case(tmp_path: Path) -> None:
    defaults = {"request": REQUEST, "signals": GOOD}
    cases = [
        {"name": "plain", "expect": ALLOWED},
        {"name": "other", "request": {"path": "/x"}, "expect": {"reason": "route_unknown"}},
    ]
    assert ran(made(tmp_path, {"defaults": defaults, "cases": cases})).told == {"plain": [], "other": []}


# ---- signals that are lost --------------------------------------------------------------------------------


def test_without_takes_signals_away_one_by_one_and_all_at_once(tmp_path: Path) -> None:
    bad = case(
        signals={**GOOD, "posture": "bad"}, expect={"reason": "policy_denied"}, without=["posture", "score"]
    )
    assert ran(made(tmp_path, [bad])).told == {
        "a case": [],
        "a case, without posture": [],
        "a case, without score": [],
        "a case, without posture and score": [],
    }


def test_without_may_say_what_a_loss_comes_to(tmp_path: Path) -> None:
    lost = {"posture": "signal_unavailable", "score": "no_policy_permits"}
    assert ran(made(tmp_path, [case(without=lost)])).told == {
        "a case": [],
        "a case, without posture": [],
        "a case, without score": ["reason: no_policy_permits / signal_unavailable"],
        "a case, without posture and score": [],
    }


def test_a_loss_that_opens_is_found(tmp_path: Path) -> None:
    signals = casebooks.FILES["signals.yaml"]
    end = signals.rindex("    influence: restrict\n")
    opened = signals[:end] + '    when_unavailable: absent\n    justification: "tried"\n' + signals[end:]
    bad = case(signals={**GOOD, "posture": "bad"}, expect={"reason": "policy_denied"}, without=["posture"])
    said = ran(made(tmp_path, [bad], **{"signals.yaml": opened})).told
    assert said["a case, without posture"] == [
        "never wider: deny, as `a case` is (policy_denied) / allow: losing posture opens it"
    ]


# ---- bad files --------------------------------------------------------------------------------------------

HEAD = "cases:\n  - name: a\n    request: {host: pages.example, path: /home, principal: null}\n"
GOOD_END = "    expect: {outcome: deny}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1 wrong_type expected a map, found nothing"),
        ("[]\n", "1:1 wrong_type expected a map, found a list"),
        ("cases: []\n", "1:1 empty_list `cases`: expected at least one entry, found none"),
        ("case: []\n", "1:1 unknown_key `case`: unknown key, did you mean `cases`?"),
        ("cases: 1\n", "1:1 wrong_type `cases`: expected a list, found a number"),
        ("cases:\n  - nmae: a\n", "2:5 unknown_key `cases[0].nmae`: unknown key, did you mean `name`?"),
        (HEAD, "2:5 missing_key `expect`: missing, a case says what it expects"),
        (HEAD + "    expect: {}\n", "4:5 missing_key `cases[0].expect`: expected at least `outcome` or `reason`"),
        (HEAD + "    expect: {outcome: alow}\n",
         "4:14 unknown_value `cases[0].expect.outcome`: expected one of `allow`, `deny`, found `alow`, did you mean `allow`?"),
        (HEAD + "    expect: {reason: policy_denyed}\n",
         "4:14 unknown_value `cases[0].expect.reason`: expected a reason of a decision, found `policy_denyed`, did you mean `policy_denied`?"),
        (HEAD + "    expect: {outcome: allow, reason: policy_denied}\n",
         "4:14 bad_value `cases[0].expect.outcome`: the reason `policy_denied` is that of a deny"),
        (HEAD + "    expect: {outcome: deny, http_status: 1000}\n",
         "4:29 bad_value `cases[0].expect.http_status`: expected 100 to 599, found 1000"),
        (HEAD + "    expect: {outcome: deny, determining: [readers-reed]}\n",
         "4:43 unknown_value `cases[0].expect.determining[0]`: expected the id of a policy, found `readers-reed`, did you mean `readers-read`?"),
        (HEAD + "    expect: {outcome: deny, signals: {scor: fresh}}\n",
         "4:39 unknown_value `cases[0].expect.signals.scor`: no contract has the name `scor`, did you mean `score`?"),
        (HEAD + GOOD_END + "    signals: [{name: scor, value: 1}]\n",
         "5:16 unknown_value `cases[0].signals[0].name`: no contract has the name `scor`, did you mean `score`?"),
        (HEAD + GOOD_END + "    signals: [{name: score, value: 1, age: 5}]\n",
         "5:39 bad_span `cases[0].signals[0].age`: expected a span such as `30s`, `5m` or `1h`, of a year at most, found a number"),
        (HEAD + GOOD_END + "    signals: {score: {state: missing, value: 1}}\n",
         "5:39 bad_value `cases[0].signals.score.value`: a signal that is missing has no `value`, leave it out"),
        (HEAD + GOOD_END + "    signals: {score: {state: fresh}}\n",
         "5:23 unknown_value `cases[0].signals.score.state`: expected one of `missing`, `stale`, `unverified`, found `fresh`"),
        (HEAD + GOOD_END + "    signals: {score: {age: 1s}}\n",
         "5:15 missing_key `cases[0].signals.score`: expected a `value`, or `state: missing`"),
        (HEAD + GOOD_END + "    at: yesterday\n",
         "5:5 bad_value `cases[0].at`: expected an RFC 3339 time such as `2026-12-31T00:00:00Z`, found `yesterday`"),
        (HEAD + GOOD_END + "    task: {type: t}\n", "5:5 missing_key `cases[0].task.actions`: missing, the key is required"),
        (HEAD + GOOD_END + "    without: [score]\n",
         "5:15 bad_value `without`: the case gives no `score`, so there is nothing to take away"),
        (HEAD + GOOD_END + "    approved_by: [bob]\n",
         "5:19 bad_spiffe_id `cases[0].approved_by[0]`: expected a SPIFFE ID such as `spiffe://prod.example/ns/a/sa/b`, found `bob`"),
        (HEAD + GOOD_END + "  - name: a\n    request: {host: h, path: /}\n    expect: {outcome: deny}\n",
         "5:5 duplicate the case of line 2 has the same name"),
        ("cases:\n  - name: a\n    expect: {outcome: deny}\n", "2:5 missing_key `request`: missing, a case says what is asked"),
        (HEAD.replace("path:", "Path:") + GOOD_END,
         "3:36 unknown_key `cases[0].request.Path`: unknown key, did you mean `path`?"),
        (HEAD.replace("path: /home", "headers: {X-A: b}") + GOOD_END,
         "3:46 bad_value `cases[0].request.headers.X-A`: a header's name is in lower case, as Envoy sends it: `x-a`"),
        (HEAD.replace("path: /home", "body: 5") + GOOD_END,
         "3:36 wrong_type `cases[0].request.body`: expected text, or a map or a list, which is sent as JSON, found a number"),
        (HEAD + "    expect: *x\n", None),
    ],
)  # fmt: skip
def test_a_mistake_is_found_with_its_place(text: str, said: str | None, tmp_path: Path) -> None:
    found = casebooks.findings(made(tmp_path, text))
    if said is None:
        assert found
        assert found[0].startswith(f"{CASES}:")
    else:
        assert f"{CASES}:{said}" in found
        assert all("None" not in one for one in found)


def test_all_mistakes_of_a_file_are_found_in_one_pass(tmp_path: Path) -> None:
    text = HEAD + "    expect: {outcome: alow}\n    sgnals: {}\n    each: [{nam: b}]\n"
    assert len(casebooks.findings(made(tmp_path, text))) == 4


def test_a_word_of_the_caller_is_not_taken_away_by_a_rule(tmp_path: Path) -> None:
    signals = (
        casebooks.FILES["signals.yaml"]
        .replace("subject: principal", "subject: request", 1)
        .replace("    max_age: 5m\n", "", 1)
        .replace("influence: grant", "influence: restrict")
        .replace(
            f'{{kind: push, publisher: "{SENDER}", assurance: authoritative}}',
            "{kind: header, header: x-score, assurance: self_asserted}",
            1,
        )
    )
    policies = '@id("a") permit (principal, action == Action::"page.read", resource);\n'
    policies += 'forbid (principal, action == Action::"page.read", resource) when { context.signals has score && context.signals.score < 3 };\n'
    policies += 'forbid (principal, action == Action::"page.read", resource) when { context.signals has posture && context.signals.posture == "bad" };\n'
    root = made(
        tmp_path, [case(without=["score"])], **{"signals.yaml": signals, "policies/pages.cedar": policies}
    )
    (said,) = casebooks.findings(root)
    assert "`score` is the caller's own word, which it may leave out" in said


# ---- where cases stand ------------------------------------------------------------------------------------


def test_cases_are_no_part_of_the_directory_that_is_served(tmp_path: Path) -> None:
    from signalwarden import config
    from signalwarden.decision_log import now_us
    from signalwarden.directory import Directory

    root = made(tmp_path, [case()])
    before, glance = config.load(root, now_us()), Directory.glance(root)
    assert before.warnings == ()
    (root / CASES).write_text("cases: nonsense\n")
    after = config.load(root, now_us())
    assert (after.configuration.revision, after.digest) == (before.configuration.revision, before.digest)
    assert Directory.glance(root) == glance


def test_files_of_cases_are_found_in_folders_and_in_order(tmp_path: Path) -> None:
    root = made(tmp_path, [case()])
    text = (root / CASES).read_text()
    casebooks.write(
        root, {"tests/b/z.yaml": text, "tests/a.yml": text, "tests/.x.yaml": "?", "tests/notes.md": "?"}
    )
    results = ran(root).results
    assert [result.case.place.file for result in results.all] == ["tests/a.yml", CASES, "tests/b/z.yaml"]
