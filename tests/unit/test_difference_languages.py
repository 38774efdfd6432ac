"""`difference` where policies are in two languages: each that is asked must permit, so one less may widen."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from signalwarden.declared import View
from signalwarden.difference import Direction, Word, in_words
from tests import asking

WIDENS, MAY_WIDEN, NARROWS, _ = Direction

Files = dict[str, str]

CEDAR: Files = {"policies/pages.cedar": '@id("open") permit (principal, action, resource);\n'}
EMPTY: Files = {"policies/pages.cedar": "// Nobody may do anything yet.\n"}
REGO: Files = {"policies/pages.rego": 'package authz\n\nallow if input.action == "page.read"\n'}
COMMON: Files = {
    "routes.yaml": """\
routes:
  - match: {host: "pages.example", method: GET, path: "/home"}
    action: page.read
    resource: {type: Page, id: home}
    tier: runtime
    sensitivity: low
""",
    "entities.cedarschema": "entity Workload;\nentity Page;\n",
}


def view(files: Files, **rego: Any) -> View:
    settings = json.loads(asking.core_settings())
    if rego:
        settings["policies"] = {"rego": {"query": "data.authz.allow", **rego}}
    loaded = asking.load({**COMMON, **files}, settings=json.dumps(settings).encode())
    return {"described": orjson.loads(loaded.describe()), "settings": {"clients": []}}


def words(old: Files, new: Files) -> list[Word]:
    return in_words(view(old), view(new))


def said(found: list[Word]) -> set[tuple[str, Direction]]:
    return {(word.name, word.direction) for word in found}


def test_rego_taken_away_beside_cedar_may_widen() -> None:
    found = words({**CEDAR, **REGO}, CEDAR)
    assert said(found) == {("data.authz.allow", MAY_WIDEN), ("Rego", MAY_WIDEN)}
    sentences = {word.name: word.sentence for word in found}
    assert sentences["Rego"] == "policies in Rego are no longer asked: what others permit is allowed"
    assert sentences["data.authz.allow"].startswith(
        "`data.authz.allow` is gone: it permits no longer, nor denies"
    )


def test_cedar_taken_away_beside_rego_may_widen() -> None:
    found = words({**CEDAR, **REGO}, REGO)
    assert said(found) == {("open", NARROWS), ("Cedar", MAY_WIDEN)}
    assert found[0].sentence == "policies in Cedar are no longer asked: what others permit is allowed"


def test_a_file_of_cedar_without_a_policy_denied_all_so_its_end_may_widen() -> None:
    assert said(words({**EMPTY, **REGO}, REGO)) == {("Cedar", MAY_WIDEN)}
    assert words({**CEDAR, **REGO}, {**EMPTY, **REGO})[0].direction is NARROWS


def test_one_language_in_place_of_the_other_is_said_of_both() -> None:
    assert said(words(CEDAR, REGO)) == {("open", NARROWS), ("data.authz.allow", WIDENS), ("Cedar", MAY_WIDEN)}


def test_the_last_policies_of_all_leave_nothing_that_could_permit() -> None:
    assert said(words(CEDAR, {})) == {("open", NARROWS)}


def test_a_language_more_is_told_as_each_new_policy_is() -> None:
    assert said(words(CEDAR, {**CEDAR, **REGO})) == {("data.authz.allow", WIDENS)}
    assert said(words(REGO, {**CEDAR, **REGO})) == {("open", WIDENS)}


def test_a_policy_in_rego_that_changed_has_another_text() -> None:
    other = {"policies/pages.rego": REGO["policies/pages.rego"] + "\n# a word\n"}
    assert said(words({**CEDAR, **REGO}, {**CEDAR, **other})) == {("data.authz.allow", MAY_WIDEN)}


@pytest.mark.parametrize(
    ("old", "new"),
    [({}, {"a.pb": "\n\0"}), ({"a.pb": "\n\0"}, {}), ({"a.pb": ""}, {"a.pb": "\n\0"})],
    ids=["added", "removed", "changed"],
)
def test_a_descriptor_set_that_is_another_one_may_widen(old: Files, new: Files) -> None:
    whole = {"policies/pages.rego": 'package authz\n\nallow if input.parsed_body.kind == "a"\n'}
    views = [
        view(
            {**whole, **files},
            input="opa_envoy",
            ungoverned=True,
            **({"descriptors": "a.pb"} if files else {}),
        )
        for files in (old, new)
    ]
    (word,) = in_words(*views)
    assert (word.part, word.name, word.direction) == ("entities", "a.pb", MAY_WIDEN)
    assert word.sentence == "`a.pb` changed: what policies see of bodies of gRPC"
    assert in_words(views[1], views[1]) == []
