"""What other enforcement points ask, as bodies: what is read, what is refused, and what is ignored."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from signalwarden.authzen_request import (
    MAX_DEPTH,
    MAX_EVALUATIONS,
    MAX_TEXT,
    Batch,
    Faulty,
    Question,
    evaluation,
    evaluations,
)
from signalwarden.errors import BadInputError

GOOD: dict[str, Any] = {
    "subject": {"type": "workload", "id": "spiffe://prod.example/a"},
    "action": {"name": "page.read"},
    "resource": {"type": "Page", "id": "1"},
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The good one, with one member otherwise; `...` takes it away."""
    asked = copy.deepcopy(GOOD)
    *above, last = path.split(".")
    node = asked
    for name in above:
        node = node[name]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return asked


def read(asked: object) -> Question:
    return evaluation(json.dumps(asked).encode())


def test_a_question_is_its_names_and_what_is_asked_for() -> None:
    asked = {**GOOD, "action": {"name": "page.read", "properties": {"amount": 7}}}
    assert read(asked) == Question(GOOD["subject"], asked["action"], GOOD["resource"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("context", {"time": "2026-01-01T00:00:00Z", "signals": {"device_trust": 5}}),
        ("subject.properties", {"role": "admin"}),
        ("resource.properties", {"status": "open"}),
        ("foo", "bar"),
        ("futureField", {"nested": True}),
        ("subject.futureField", 1),
        ("options", {"evaluations_semantic": "whatever"}),
    ],
)
def test_claims_and_unknown_members_are_ignored(path: str, value: object) -> None:
    assert read(changed(path, value)) == read(GOOD)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("subject", ..., "`subject` is missing"),
        ("action", ..., "`action` is missing"),
        ("resource", ..., "`resource` is missing"),
        ("subject.type", ..., "`subject.type` is missing"),
        ("subject.id", ..., "`subject.id` is missing"),
        ("action.name", ..., "`action.name` is missing"),
        ("resource.type", ..., "`resource.type` is missing"),
        ("resource.id", ..., "`resource.id` is missing"),
        ("subject", "alice", "`subject`: expected an object"),
        ("subject", None, "`subject`: expected an object"),
        ("action", [], "`action`: expected an object"),
        ("action.name", 123, "`action.name`: expected a text"),
        ("action.name", "", "`action.name`: expected a text"),
        ("resource.id", None, "`resource.id`: expected a text"),
        ("resource.id", "x" * (MAX_TEXT + 1), "`resource.id`: expected a text"),
        ("subject.properties", [], "`subject.properties`: expected an object"),
        ("action.properties", "x", "`action.properties`: expected an object"),
        ("resource.properties", None, "`resource.properties`: expected an object"),
        ("context", "now", "`context`: expected an object"),
        ("context", None, "`context`: expected an object"),
    ],
)
def test_what_is_missing_or_of_another_type_is_named(path: str, value: object, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        read(changed(path, value))


def nested(depth: int) -> bytes:
    return json.dumps(GOOD)[:-1].encode() + b',"context":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"subject": NaN}', "not JSON"),
        (b'{"subject": "\\ud800"}', "not JSON"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'"x"', "expected a JSON object"),
        (b'{"subject": {}, "subject": {}}', "a name stands twice"),
        (b'{"context": {"a": 1, "\\u0061": 2}}', "a name stands twice"),
        (nested(MAX_DEPTH), f"at most {MAX_DEPTH} deep"),
        (nested(900), f"at most {MAX_DEPTH} deep"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 50_000, "not JSON"),
    ],
)
def test_what_is_no_plain_object_is_refused_without_a_word_of_it(body: bytes, why: str) -> None:
    for reader in (evaluation, evaluations):
        with pytest.raises(BadInputError, match=why):
            reader(body)


def test_what_people_write_is_deep_enough() -> None:
    assert evaluation(nested(MAX_DEPTH - 1)) == read(GOOD)


def test_a_number_of_any_length_is_no_trouble() -> None:
    for digits in (30, 300):
        body = json.dumps(GOOD)[:-1].encode() + b',"context":{"a":' + b"9" * digits + b"}}"
        assert evaluation(body) == read(GOOD)
    with pytest.raises(BadInputError, match="not JSON"):
        evaluation(json.dumps(GOOD)[:-1].encode() + b',"context":{"a":' + b"9" * 6_000 + b"}}")


# ---- several --------------------------------------------------------------------------------------------


def several(asked: object) -> Question | Batch:
    return evaluations(json.dumps(asked).encode())


def batch(asked: object) -> Batch:
    found = several(asked)
    assert isinstance(found, Batch)
    return found


@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
def test_without_a_list_it_is_one_question(more: dict[str, Any]) -> None:
    assert several({**GOOD, **more}) == read(GOOD)


@pytest.mark.parametrize("options", [{"evaluations_semantic": "whatever"}, [], None, "x"])
@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
def test_of_one_question_options_are_ignored_whatever_they_are(more: dict[str, Any], options: Any) -> None:
    assert several({**GOOD, **more, "options": options}) == read(GOOD)


def test_claims_and_unknown_members_of_an_element_are_ignored() -> None:
    claims = {"context": {"time": "x"}, "foo": "bar", "options": 7, "evaluations": [{}]}
    assert batch({**GOOD, "evaluations": [claims]}).questions == (read(GOOD),)


def test_a_part_of_an_element_replaces_the_default_whole() -> None:
    asked = {
        "subject": GOOD["subject"],
        "action": {"name": "page.read", "properties": {"amount": 7}},
        "resource": GOOD["resource"],
        "evaluations": [{}, {"action": {"name": "page.write"}}, {"resource": {"id": "2"}}],
    }
    first, second, third = batch(asked).questions
    assert isinstance(first, Question)
    assert first.action == asked["action"]
    assert isinstance(second, Question)
    assert second.action == {"name": "page.write", "properties": {}}
    assert third == Faulty("evaluations[2]: `resource.type` is missing")


def test_what_is_wrong_with_one_is_its_own() -> None:
    asked = {"evaluations": [GOOD, {}, 7, {**GOOD, "subject": "alice"}, GOOD]}
    kinds = [type(question) for question in batch(asked).questions]
    assert kinds == [Question, Faulty, Faulty, Faulty, Question]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"evaluations": {}}, "`evaluations`: expected a list"),
        ({"evaluations": None}, "`evaluations`: expected a list"),
        ({"evaluations": [{}] * (MAX_EVALUATIONS + 1)}, f"at most {MAX_EVALUATIONS}"),
        ({"evaluations": [{}], "subject": "alice"}, "`subject`: expected an object"),
        ({"evaluations": [{}], "context": 1}, "`context`: expected an object"),
        ({"evaluations": [{}], "options": []}, "`options`: expected an object"),
        (
            {"evaluations": [{}], "options": {"evaluations_semantic": "first"}},
            "expected one of `execute_all`",
        ),
        ({"evaluations": [{}], "options": {"evaluations_semantic": None}}, "expected one of `execute_all`"),
        ({"evaluations": [{}], "options": {"evaluations_semantic": []}}, "expected one of `execute_all`"),
    ],
)
def test_what_is_wrong_with_the_whole_is_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        several({**GOOD, **more})


@pytest.mark.parametrize(
    ("semantic", "ends"),
    [
        (None, (False, False)),
        ("execute_all", (False, False)),
        ("deny_on_first_deny", (False, True)),
        ("permit_on_first_permit", (True, False)),
    ],
)
def test_a_semantic_says_after_which_answer_nothing_is_asked(
    semantic: str | None, ends: tuple[bool, bool]
) -> None:
    options = {} if semantic is None else {"options": {"evaluations_semantic": semantic, "another": 1}}
    found = batch({**GOOD, "evaluations": [{}], **options})
    assert (found.ends_with(allowed=True), found.ends_with(allowed=False)) == ends
