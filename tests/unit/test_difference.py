"""`difference`: each change of a directory is said, in words, with what it widens or narrows."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import yaml

from signalwarden import _core
from signalwarden.config import read_settings
from signalwarden.declared import MAX_NAMES, View, differences
from signalwarden.difference import Direction, Word, contracts, in_words, parts, principals
from tests.asking import CORE_SETTINGS

WIDENS, MAY_WIDEN, NARROWS, NEUTRAL = Direction
KEYS = ("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=")
MDM, EDR = "spiffe://prod.example/mdm", "spiffe://prod.example/edr"

Directory = dict[str, Any]


def contract(**more: Any) -> dict[str, Any]:
    """A signal that may help to allow, pushed by one publisher."""
    return {
        "type": "long",
        "description": "How far a device is trusted",
        "owner": "team@prod.example",
        "purpose": "Keep bad devices out",
        "subject": "principal",
        "sources": [push(MDM)],
        "max_age": "5m",
        "influence": "grant",
        "used_by": ["page.read"],
        "review_by": "2099-01-01",
        **more,
    }


def push(publisher: str, assurance: str = "authoritative") -> dict[str, str]:
    return {"kind": "push", "publisher": publisher, "assurance": assurance}


def route(path: str = "/home", action: str = "page.read", **more: Any) -> dict[str, Any]:
    return {
        "match": {"host": "pages.example", "method": "GET", "path": path},
        "action": action,
        "resource": {"type": "Page", "id": "home"},
        "tier": "runtime",
        "sensitivity": "low",
        **more,
    }


def directory() -> Directory:
    return {
        "settings": {"trust_domain": "prod.example"},
        "routes": {"routes": [route(), route("/{page}", "page.list")], "default": "deny"},
        "register": {
            "feeds": {
                "posture_file": {"kind": "poll", "file": "feeds/posture.json"},
                "idp": {
                    "kind": "ssf", "issuer": "https://idp.example", "audience": "https://sw.example/ssf",
                    "keys": {"file": "keys/idp.json"}, "delivery": "push", "members": {"tenant": "T-1"},
                },
            },
            "signals": {"trust": contract(), "watched": contract(influence="observe")},
        },
        "policies": {
            "open": 'permit (principal, action, resource);',
            "closed": 'forbid (principal, action == Action::"page.read", resource) when { principal.sulks };',
            "tried": '@mode("observe") forbid (principal, action == Action::"page.list", resource);',
        },
        "entities": [],
    }  # fmt: skip


def view(said: Directory) -> View:
    policies = "\n".join(f'@id("{name}") {text}' for name, text in said["policies"].items())
    files = {
        "routes.yaml": yaml.safe_dump(said["routes"]),
        "signals.yaml": yaml.safe_dump(said["register"]),
        "entities.json": orjson.dumps(said["entities"]).decode(),
        "entities.cedarschema": "entity Workload = {sulks: Bool, owner?: String, environment?: String, retired_at?: String,"
        " legacy_until?: String};\nentity Page;\n",
        "policies/all.cedar": policies,
    }
    loaded = _core.Configuration.load(
        sorted((name, text.encode()) for name, text in files.items()),
        settings=CORE_SETTINGS,
        now_us=time.time_ns() // 1000,
    )
    text = yaml.safe_dump(said["settings"])
    settings, findings = read_settings(text, now=datetime.now(UTC))
    assert settings is not None, findings
    return {
        "described": orjson.loads(loaded.describe()),
        "settings": orjson.loads(orjson.dumps(settings.model_dump())),
    }


Edit = Callable[[Directory], object]


def words(edit: Edit, before: Edit = lambda _: None) -> list[Word]:
    old, new = directory(), directory()
    for said in (old, new):
        before(said)
    edit(new)
    return in_words(view(old), view(new))


def signal(**fields: Any) -> Edit:
    """Sets keys of `trust`; None takes one out."""

    def edit(said: Directory) -> None:
        found = said["register"]["signals"]["trust"]
        found.update(fields)
        for key in [key for key, value in fields.items() if value is None]:
            del found[key]

    return edit


def workload(**attributes: str) -> Edit:
    """Lists one, and nobody else."""
    uid = {"type": "Workload", "id": "spiffe://prod.example/w"}
    return put("entities", value=[{"uid": uid, "attrs": {"sulks": False, **attributes}, "parents": []}])


def both(*edits: Edit) -> Edit:
    def edit(said: Directory) -> None:
        for one in edits:
            one(said)

    return edit


def put(*path: str | int, value: Any) -> Edit:
    def edit(said: Directory) -> None:
        node: Any = said
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = copy.deepcopy(value)

    return edit


def cut(*path: str | int) -> Edit:
    def edit(said: Directory) -> None:
        node: Any = said
        for step in path[:-1]:
            node = node[step]
        del node[path[-1]]

    return edit


NOTHING: Edit = lambda _: None  # noqa: E731
TWO = signal(sources=[push(MDM), push(EDR)], merge="agree")
RISKY = both(
    signal(adverse={"at_least": 80}),
    put("register", "signals", "other", value=contract(adverse={"at_least": 80}, influence="restrict")),
    put("register", "signals", "third", value=contract(adverse={"at_least": 80}, influence="restrict")),
)
TOGETHER = both(RISKY, signal(corroborate={"with": ["other"], "need": 2}))
ALICE, BOB = (
    {"id": f"{name}@prod.example", "ed25519": key} for name, key in zip(("alice", "bob"), KEYS, strict=True)
)
EVENTS = {"session-revoked": {"value": 1}}


def ssf(**more: Any) -> Edit:
    source = {"kind": "ssf", "feed": "idp", "assurance": "sourced", "events": EVENTS, **more}
    return signal(sources=[source], subject="principal")


def zoned(network: str) -> Edit:
    source = {
        "kind": "peer",
        "assurance": "sourced",
        "zones": {"office": [network]},
        "otherwise": "elsewhere",
    }
    return signal(type="string", subject="request", sources=[source], max_age=None)


SIGNAL_CASES: list[tuple[str, Edit, Edit, Direction, str]] = [
    ("restrict to grant", signal(influence="restrict"), signal(influence="grant"), WIDENS,
     "`trust` may now help to allow: its influence was `restrict`, is `grant`"),
    ("grant to restrict", NOTHING, signal(influence="restrict"), NARROWS, "may no longer help to allow"),
    ("observe to restrict", signal(influence="observe"), signal(influence="restrict"), NARROWS, "may now deny"),
    ("observe to grant", signal(influence="observe"), signal(influence="grant"), WIDENS, "may now help to allow"),
    ("restrict to observe", signal(influence="restrict"), signal(influence="observe"), WIDENS, "may no longer deny"),
    ("grant to observe", NOTHING, signal(influence="observe"), MAY_WIDEN, "may no longer allow or deny"),
    ("older", NOTHING, signal(max_age="1h"), WIDENS, "older values of `trust` count: its max_age was `5m`, is `1h`"),
    ("younger", NOTHING, signal(max_age="90s"), NARROWS, "grow stale sooner: its max_age was `5m`, is `90s`"),
    ("absent", NOTHING, signal(when_unavailable="absent", justification="The feed is slow"), WIDENS,
     "judged as if it said nothing: its when_unavailable was `deny`, is `absent`"),
    ("deny", signal(when_unavailable="absent", justification="The feed is slow"),
     signal(when_unavailable="deny", justification=None), NARROWS, "whatever depends on it is denied"),
    ("read by more", NOTHING, signal(used_by=["page.read", "page.list"]), MAY_WIDEN,
     "policies of `page.list` may read `trust`"),
    ("read by fewer", signal(used_by=["page.read", "page.list"]), NOTHING, MAY_WIDEN, ""),
    ("restricts more", signal(influence="restrict"), signal(used_by=["page.read", "page.list"]), NARROWS,
     "policies of `page.list` may read `trust`"),
    ("restricts fewer", signal(influence="restrict", used_by=["page.read", "page.list"]), signal(used_by=["page.read"]),
     MAY_WIDEN, "policies of `page.list` may no longer read `trust`, nor deny for it"),
    ("a source more, that must agree", TWO, signal(sources=[push(MDM), push(EDR), push("spiffe://prod.example/x")]),
     NARROWS, "`push:spiffe://prod.example/x` may say `trust`, too"),
    ("a source less, that had to agree", signal(sources=[push(MDM), push(EDR), push("spiffe://prod.example/x")],
     merge="agree"), signal(sources=[push(MDM), push(EDR)]), WIDENS, "may no longer say `trust`"),
    ("a source more, behind the first", both(TWO, signal(merge="first")),
     signal(sources=[push(MDM), push(EDR), push("spiffe://prod.example/x")]), NEUTRAL, "may say `trust`, too"),
    ("another first source", both(TWO, signal(merge="first")), signal(sources=[push(EDR), push(MDM)]), MAY_WIDEN,
     "stand in another order"),
    ("another publisher", NOTHING, signal(sources=[push(EDR)]), MAY_WIDEN,
     f"`trust` is said by others: `push:{MDM}` no longer, `push:{EDR}` instead"),
    ("better assurance", signal(sources=[push(MDM, "sourced")]), signal(sources=[push(MDM)]), WIDENS,
     "counts for more: its assurance was `sourced`, is `authoritative`"),
    ("worse assurance", NOTHING, signal(sources=[push(MDM, "sourced")]), NARROWS, "counts for less"),
    ("a weaker word", NOTHING, signal(sources=[push(MDM), push(EDR, "sourced")], merge="agree"), MAY_WIDEN,
     "`trust` rests on a weaker word than before, one that is `sourced`"),
    ("the first decides", TWO, signal(merge="first"), WIDENS, "the first source of `trust` decides alone"),
    ("all have a say", both(TWO, signal(merge="first")), signal(merge="agree"), NARROWS, "all sources of `trust` have"),
    ("worst instead of all", TWO, signal(merge="any_adverse", adverse={"at_least": 3}), MAY_WIDEN, "in another way"),
    ("fewer adverse", both(TWO, signal(merge="any_adverse", adverse={"at_least": 80})), signal(adverse={"at_least": 90}),
     WIDENS, 'fewer values of `trust` are adverse: its adverse was `{"at_least":80}`, is `{"at_least":90}`'),
    ("more adverse", both(TWO, signal(merge="any_adverse", adverse={"at_most": 2})), signal(adverse={"at_most": 5}),
     NARROWS, "more values of `trust` are adverse"),
    ("more values adverse", both(TWO, signal(merge="any_adverse", adverse={"one_of": [1]})),
     signal(adverse={"one_of": [1, 2]}), NARROWS, "more values"),
    ("other values adverse", both(TWO, signal(merge="any_adverse", adverse={"one_of": [1, 3]})),
     signal(adverse={"one_of": [1, 2]}), MAY_WIDEN, "other values"),
    ("adverse of another form", both(TWO, signal(merge="any_adverse", adverse={"one_of": [1, 3]})),
     signal(adverse={"at_most": 3}), MAY_WIDEN, "other values"),
    ("only in company", RISKY, signal(corroborate={"with": ["other"], "need": 2}), WIDENS,
     "an adverse value of `trust` alone no longer counts"),
    ("alone", TOGETHER, signal(corroborate=None), NARROWS, "an adverse value of `trust` counts alone"),
    ("more company", both(TOGETHER, signal(corroborate={"with": ["other", "third"], "need": 2})),
     signal(corroborate={"with": ["other", "third"], "need": 3}), WIDENS, "needs more company"),
    ("a larger group", TOGETHER, signal(corroborate={"with": ["other", "third"], "need": 2}), NARROWS,
     "needs less company"),
    ("another group", TOGETHER, signal(corroborate={"with": ["third"], "need": 2}), MAY_WIDEN, "needs other company"),
    ("a resting value", ssf(), ssf(while_live=4), WIDENS, "has a value for subjects that `ssf:idp` has said nothing of"),
    ("no resting value", ssf(while_live=4), ssf(), NARROWS, "is missing for subjects that `ssf:idp`"),
    ("another resting value", ssf(while_live=4), ssf(while_live=5), MAY_WIDEN, "is another value for subjects"),
    ("other events", ssf(), ssf(events={"session-revoked": {"value": 2}}), MAY_WIDEN,
     "`ssf:idp` is read in another way for `trust`: its `events`"),
    ("another network", zoned("10.0.0.0/8"), zoned("10.0.0.0/16"), MAY_WIDEN,
     "`peer` means something else for `trust`: its `zones`"),
    ("another type", NOTHING, signal(type="string"), MAY_WIDEN, "`trust` means something else: its type"),
    ("another subject", NOTHING, signal(subject="global"), MAY_WIDEN, "means something else: its subject"),
    ("shown to more", NOTHING, signal(sensitivity="public"), WIDENS, "more people may see values of `trust`"),
    ("shown to fewer", NOTHING, signal(sensitivity="secret"), NARROWS, "fewer people may see values of `trust`"),
    ("a later review", NOTHING, signal(review_by="2099-02-01"), NEUTRAL, "is looked at again later"),
    ("an approver more", signal(approvers=[ALICE]), signal(approvers=[ALICE, BOB]), NARROWS,
     "a change of `trust` needs the approval of `bob@prod.example`, too"),
    ("an approver less", signal(approvers=[ALICE, BOB]), signal(approvers=[BOB]), WIDENS,
     "no longer needs the approval of `alice@prod.example`"),
    ("another key", signal(approvers=[ALICE]), signal(approvers=[{**ALICE, "ed25519": KEYS[1]}]), MAY_WIDEN,
     "`alice@prod.example` approve `trust` with another key"),
    ("another owner", NOTHING, signal(owner="other@prod.example"), NEUTRAL, "its owner is `other@prod.example`"),
    ("a new grant", NOTHING, put("register", "signals", "fresh", value=contract()), MAY_WIDEN,
     f"`fresh` is new and may help to allow: `push:{MDM}` say it"),
    ("a new restriction", NOTHING, put("register", "signals", "fresh", value=contract(influence="restrict")), NARROWS,
     "`fresh` is new and may only deny"),
    ("something new to observe", NOTHING, put("register", "signals", "fresh", value=contract(influence="observe")),
     NEUTRAL, "`fresh` is new and is only observed"),
    ("a grant less", NOTHING, cut("register", "signals", "trust"), MAY_WIDEN, "`trust` is gone, which could allow and"),
    ("a restriction less", signal(influence="restrict"), cut("register", "signals", "trust"), WIDENS,
     "`trust` is gone and denies nobody any more"),
    ("observed no more", NOTHING, cut("register", "signals", "watched"), NEUTRAL, "`watched` is gone"),
    ("lenient reviews", put("register", "strict_reviews", value=True), put("register", "strict_reviews", value=False),
     MAY_WIDEN, "a contract whose review is past loads, with a warning"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "edit", "direction", "said"),
    [case[1:] for case in SIGNAL_CASES],
    ids=[case[0] for case in SIGNAL_CASES],
)
def test_each_change_of_a_contract_has_its_sentence(
    before: Edit, edit: Edit, direction: Direction, said: str
) -> None:
    if edit is NOTHING:
        edit = signal(used_by=["page.read"])
    found = words(edit, before)
    assert any(word.direction is direction and said in word.sentence for word in found), found
    assert all(word.part == "signal" for word in found)


def test_what_is_only_observed_moves_nobodys_access() -> None:
    edit = put(
        "register", "signals", "watched", value=contract(influence="observe", max_age="1d", type="string")
    )
    assert {word.direction for word in words(edit)} == {NEUTRAL}


CLIENT = {
    "id": "spiffe://prod.example/ops",
    "may": ["read"],
    "token_sha256": "0" * 64,
    "expires": "2098-01-01T00:00:00Z",
}
FOR_EVER = {"id": "spiffe://prod.example/ops", "may": ["read"]}
"""By its certificate: only a token must end."""
BARE = both(put("register", "signals", value={}), cut("policies", "closed"))
TWO_TOKENS = put("settings", "clients", value=[
    CLIENT, {**CLIENT, "token_sha256": "2" * 64, "may": ["read", "operate"]}])  # fmt: skip
WITH_CLIENT = put("settings", "clients", value=[CLIENT])

OTHER_CASES: list[tuple[str, Edit, Edit, str, Direction, str]] = [
    ("a route more", NOTHING, lambda d: d["routes"]["routes"].append(route("/x/y", "page.new")), "route", WIDENS,
     "requests `GET pages.example/x/y` are decided, as `page.new` of tier `runtime`"),
    ("a route less",
        lambda d: d["routes"]["routes"].append(route("/x/y", "page.new")),
        lambda d: d["routes"]["routes"].pop(),
        "route",
        NARROWS,
        "requests `GET pages.example/x/y` are denied: the route to `page.new` is gone",
    ),
    (
        "a route less that another stands behind", BARE, cut("routes", "routes", 0), "route",
     MAY_WIDEN, "`GET pages.example/home` are no longer `page.read`: another route may take them"),
    ("a weaker tier", put("routes", "routes", 0, "tier", value="jit"), put("routes", "routes", 0, "tier", value="runtime"), "route", WIDENS,
     "is guarded less closely: its tier was `jit`, is `runtime`"),
    ("a stronger tier", NOTHING, put("routes", "routes", 0, "tier", value="jit"), "route", NARROWS, "more closely"),
    ("not enforced", NOTHING, put("routes", "routes", 0, "enforce", value=False), "route", WIDENS,
     "what would be denied at `GET pages.example/home` is only recorded, and let pass"),
    ("enforced", put("routes", "routes", 0, "enforce", value=False), put("routes", "routes", 0, "enforce", value=True),
     "route", NARROWS, "is denied again"),
    ("less sensitive", put("routes", "routes", 0, "sensitivity", value="high"),
     put("routes", "routes", 0, "sensitivity", value="low"), "route", MAY_WIDEN, "held to be less sensitive"),
    ("more sensitive", NOTHING, put("routes", "routes", 0, "sensitivity", value="high"), "route", MAY_WIDEN,
     "held to be more sensitive"),
    ("another action", BARE, put("routes", "routes", 0, "action", value="page.write"),
     "route", MAY_WIDEN, "decided by policies of another action"),
    ("other facts", NOTHING, put("routes", "routes", 0, "facts", value={"data_class": "pii"}), "route", MAY_WIDEN,
     "tells policies other facts: its facts was nothing, is `{\"data_class\":\"pii\"}`"),
    ("other arguments", NOTHING, put("routes", "routes", 0, "args", value={"query": {"n": "long?"}}), "route", MAY_WIDEN,
     "its match, resource or args changed"),
    ("a permit more", NOTHING, put("policies", "new", value="permit (principal, action, resource);"), "policy", WIDENS,
     "`new` is new and allows what it permits"),
    ("a permit less", NOTHING, cut("policies", "open"), "policy", NARROWS, "`open` is gone and no longer allows"),
    ("a forbid more", NOTHING, put("policies", "new", value="forbid (principal, action, resource);"), "policy", NARROWS,
     "`new` is new and denies what it forbids"),
    ("a forbid less", NOTHING, cut("policies", "closed"), "policy", WIDENS, "`closed` is gone and no longer denies"),
    ("a permit changed", NOTHING, put("policies", "open", value=
     'permit (principal, action == Action::"page.read", resource) when {context.signals has trust && context.signals.trust > 1};'),
     "policy", MAY_WIDEN, "the permit `open` has another text, it now reads `trust`"),
    ("a forbid changed", NOTHING, put("policies", "closed", value="forbid (principal, action, resource);"), "policy",
     MAY_WIDEN, "the forbid `closed` has another text"),
    ("a permit from a forbid", NOTHING, put("policies", "closed", value="permit (principal, action, resource);"), "policy",
     WIDENS, "`closed` was `forbid`, is `permit`"),
    ("a forbid from a permit", NOTHING, put("policies", "open", value="forbid (principal, action, resource);"), "policy",
     NARROWS, "`open` was `permit`, is `forbid`"),
    ("a forbid that counts", NOTHING,
     put("policies", "tried", value='forbid (principal, action == Action::"page.list", resource);'), "policy", NARROWS,
     "`tried` counts from now on, a forbid"),
    ("a forbid that counts no more", NOTHING, put("policies", "closed", value=
     '@mode("observe") forbid (principal, action == Action::"page.read", resource) when { principal.sulks };'),
     "policy", WIDENS, "`closed` no longer counts and is only observed, a forbid"),
    ("a permit that counts no more", NOTHING,
     put("policies", "open", value='@mode("observe") permit (principal, action, resource);'), "policy", NARROWS,
     "`open` no longer counts"),
    ("a try less", NOTHING, cut("policies", "tried"), "policy", NEUTRAL, "which is only observed"),
    ("another try", NOTHING, put("policies", "tried", value='@mode("observe") forbid (principal, action, resource);'),
     "policy", NEUTRAL, "is only observed, as before"),
    ("a feed more", NOTHING, put("register", "feeds", "x", value={"kind": "poll", "url": "https://x.example/p"}), "feed",
     NEUTRAL, "the feed `x` is new: poll from `https://x.example/p`"),
    ("a feed less", NOTHING, cut("register", "feeds", "posture_file"), "feed", NEUTRAL, "the feed `posture_file` is gone"),
    ("another place of a feed", NOTHING, put("register", "feeds", "posture_file", "file", value="feeds/other.json"), "feed",
     MAY_WIDEN, "comes from elsewhere or is trusted otherwise: its file was `feeds/posture.json`"),
    ("another issuer", NOTHING, put("register", "feeds", "idp", "issuer", value="https://x.example"), "feed", MAY_WIDEN,
     "its issuer was"),
    ("another pace", NOTHING, put("register", "feeds", "posture_file", "interval", value="1m"), "feed", NEUTRAL,
     "is asked at another pace: its interval was `30s`, is `1m`"),
    ("a longer silence", NOTHING, put("register", "feeds", "idp", "retention", value="48h"), "feed", WIDENS,
     "a longer silence of the feed `idp` is no gap: its retention was `1d`, is `2d`"),
    ("more subjects", NOTHING, put("register", "feeds", "idp", "members", value={}), "feed", WIDENS,
     "is heard on more subjects"),
    ("fewer subjects", NOTHING, put("register", "feeds", "idp", "members", value={"tenant": "T-1", "user": "u"}), "feed",
     NARROWS, "is heard on other subjects"),
    ("another domain", NOTHING, put("settings", "trust_domain", value="x.example"), "setting", MAY_WIDEN,
     "principals of another trust domain are accepted"),
    ("a friend", NOTHING, put("settings", "federates_with", value=["x.example"]), "setting", WIDENS,
     "principals of `x.example` are accepted"),
    ("a friend less", put("settings", "federates_with", value=["x.example"]), cut("settings", "federates_with"),
     "setting", NARROWS, "principals of `x.example` are no longer accepted"),
    ("another door", NOTHING, put("settings", "listen", value={"check": "127.0.0.1:1"}), "setting", MAY_WIDEN,
     "the setting `listen.check` was `127.0.0.1:9191`, is `127.0.0.1:1`"),
    ("no watch", NOTHING, put("settings", "watch", value=False), "setting", NEUTRAL, "the setting `watch` was `true`"),
    ("a client", NOTHING, WITH_CLIENT, "client", WIDENS, "`spiffe://prod.example/ops` may `read`"),
    ("a client less", WITH_CLIENT, cut("settings", "clients"), "client", NARROWS, "may no longer `read`"),
    ("a right more", WITH_CLIENT, put("settings", "clients", 0, "may", value=["read", "operate"]), "client", WIDENS,
     "may `operate`"),
    ("a right less", WITH_CLIENT, put("settings", "clients", 0, "may", value=["publish"]), "client", NARROWS,
     "may no longer `read`"),
    ("another token with more rights", TWO_TOKENS, put("settings", "clients", 0, "may", value=["read", "operate"]),
     "client", WIDENS, "another token of `spiffe://prod.example/ops` may `operate`"),
    ("a token with fewer rights", TWO_TOKENS, put("settings", "clients", 1, "may", value=["operate"]),
     "client", NARROWS, "a token of `spiffe://prod.example/ops` may no longer `read`"),
    ("another token", WITH_CLIENT, put("settings", "clients", 0, "token_sha256", value="1" * 64), "client", MAY_WIDEN,
     "has another token"),
    ("whom it asks about", put("settings", "clients", value=[{**CLIENT, "may": ["evaluate"]}]), put("settings", "clients", 0, "subjects", value=["spiffe://prod.example/a/*"]),
     "client", WIDENS, "may ask about `spiffe://prod.example/a/*`"),
    ("a longer token", WITH_CLIENT, put("settings", "clients", 0, "expires", value="2099-01-01T00:00:00Z"), "client",
     WIDENS, "a token of `spiffe://prod.example/ops` ends later"),
    ("a shorter token", WITH_CLIENT, put("settings", "clients", 0, "expires", value="2097-01-01T00:00:00Z"), "client",
     NARROWS, "ends sooner"),
    ("a client for ever", put("settings", "clients", value=[{**FOR_EVER, "expires": "2098-01-01T00:00:00Z"}]),
     cut("settings", "clients", 0, "expires"), "client", WIDENS, "ends later"),
    ("a client for a time", put("settings", "clients", value=[FOR_EVER]),
     put("settings", "clients", 0, "expires", value="2098-01-01T00:00:00Z"), "client", NARROWS, "ends sooner"),
    ("other entities", NOTHING, put("entities", value=[
        {"uid": {"type": "Page", "id": "home"}, "attrs": {}, "parents": []}]), "entities", MAY_WIDEN,
     "`entities.json` changed"),
    ("an environment", NOTHING, put("routes", "routes", 0, "environment", value="prod"), "route", NARROWS,
     "denies principals of other environments: its environment was nothing, is `prod`"),
    ("another environment", put("routes", "routes", 0, "environment", value="prod"),
     put("routes", "routes", 0, "environment", value="test"), "route", MAY_WIDEN, "principals of another environment"),
    ("no environment", put("routes", "routes", 0, "environment", value="prod"), cut("routes", "routes", 0, "environment"),
     "route", WIDENS, "takes principals of every environment"),
    ("whom nobody lists is denied", NOTHING, put("settings", "principals", value={"require_record": True}), "setting",
     NARROWS, "the setting `principals.require_record` was `false`, is `true`"),
    ("whom nobody lists is no longer denied", put("settings", "principals", value={"require_record": True}),
     put("settings", "principals", value={"require_record": False}), "setting", WIDENS,
     "the setting `principals.require_record` was `true`, is `false`"),
    ("retired", workload(), workload(retired_at="2027-01-01T00:00:00Z"), "entities", NARROWS,
     "`spiffe://prod.example/w` is denied once it is retired: its retired_at was nothing"),
    ("retired later", workload(retired_at="2027-01-01T00:00:00Z"), workload(retired_at="2027-01-01T00:00:00-01:00"),
     "entities", WIDENS, "is retired at another time"),
    ("retired sooner", workload(retired_at="2027-01-01T00:00:00Z"), workload(retired_at="2026-12-31T23:59:59Z"),
     "entities", NARROWS, "is retired at another time"),
    ("not retired any more", workload(retired_at="2027-01-01T00:00:00Z"), workload(), "entities", WIDENS,
     "`spiffe://prod.example/w` is not retired any more"),
    ("its record is gone", workload(retired_at="2027-01-01T00:00:00Z"), put("entities", value=[]), "entities", WIDENS,
     "`spiffe://prod.example/w` is not retired any more"),
    ("a legacy one", workload(), workload(legacy_until="2027-01-01T00:00:00Z"), "entities", NARROWS,
     "is a legacy principal, for coarse routes alone"),
    ("a legacy one for longer", workload(legacy_until="2027-01-01T00:00:00Z"),
     workload(legacy_until="2028-01-01T00:00:00Z"), "entities", WIDENS, "is borne for longer: its legacy_until was"),
    ("a legacy one for a shorter time", workload(legacy_until="2027-01-01T00:00:00Z"),
     workload(legacy_until="2026-01-01T00:00:00Z"), "entities", NARROWS, "is borne for a shorter time"),
    ("no legacy one", workload(legacy_until="2027-01-01T00:00:00Z"), workload(), "entities", WIDENS,
     "is no legacy principal any more"),
    ("of an environment", workload(), workload(environment="prod"), "entities", NARROWS,
     "routes of other environments deny `spiffe://prod.example/w`"),
    ("of another environment", workload(environment="prod"), workload(environment="test"), "entities", MAY_WIDEN,
     "belongs to another environment"),
    ("of no environment", workload(environment="prod"), workload(), "entities", WIDENS, "routes of every environment take"),
    ("of others", workload(environment="prod", owner="a"), workload(environment="prod", owner="b"), "entities", NEUTRAL,
     "others answer for `spiffe://prod.example/w`: its owner was `a`, is `b`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "edit", "part", "direction", "said"),
    [case[1:] for case in OTHER_CASES],
    ids=[case[0] for case in OTHER_CASES],
)
def test_each_change_of_another_part_has_its_sentence(
    before: Edit, edit: Edit, part: str, direction: Direction, said: str
) -> None:
    found = words(edit, before)
    assert any(
        word.part == part and word.direction is direction and said in word.sentence for word in found
    ), found
    assert "0" * 64 not in str(found)


def test_what_is_the_same_has_no_words() -> None:
    assert words(NOTHING) == []

    def shuffled(said: Directory) -> None:
        said["routes"]["routes"].reverse()
        said["register"]["signals"] = dict(reversed(said["register"]["signals"].items()))
        said["policies"] = dict(reversed(said["policies"].items()))

    assert words(shuffled) == []


def test_a_policy_without_a_name_that_moves_is_the_same_policy() -> None:
    old = {"id": "p.cedar:1", "text_sha256": "a", "effect": "forbid", "mode": "enforce", "signals": []}
    other = {"id": "p.cedar:3", "text_sha256": "b", "effect": "permit", "mode": "enforce", "signals": []}
    before, after = view(directory()), view(directory())
    before["described"]["policies"] = [old]
    after["described"]["policies"] = [other, {**old, "id": "p.cedar:5"}]
    assert [(w.name, w.direction) for w in in_words(before, after)] == [("p.cedar:3", WIDENS)]


def test_what_widens_comes_first() -> None:
    def much(said: Directory) -> None:
        signal(max_age="1h", owner="x@prod.example", sensitivity="secret", type="string")(said)
        said["policies"]["new"] = "permit (principal, action, resource);"

    directions = [list(Direction).index(word.direction) for word in words(much)]
    assert directions == sorted(directions)
    assert len(set(directions)) == 4


def test_a_key_of_a_contract_that_nobody_foresaw_is_told_and_not_taken_for_harmless() -> None:
    before, after = view(directory()), view(directory())
    after["described"]["signals"][0]["moon_phase"] = "full"
    (word,) = in_words(before, after)
    assert word.direction is MAY_WIDEN
    assert "its `moon_phase` was nothing, is `full`" in word.sentence


def test_every_key_of_a_contract_has_its_rule() -> None:
    (described, *_) = view(directory())["described"]["signals"]
    assert set(described) == set(contracts.RULES) | contracts.PLACE


def test_a_principal_is_told_by_name_where_its_record_can_stand_against_it() -> None:
    old, new = directory(), directory()
    workload(owner="a")(old)
    workload(owner="a", retired_at="2027-01-01T00:00:00Z")(new)
    assert differences(view(old), view(new))["principals"]["added"] == ["spiffe://prod.example/w"]
    assert set(view(new)["described"]["principals"][0]) <= {"principal", *principals.RULES}
    assert view(old)["described"]["principals"] == []
    strange = [
        {"principal": "spiffe://prod.example/w", "retired_at": "+12026-01-01T00:00:00Z", "moon": "full"}
    ]
    found = principals.changed(view(new)["described"]["principals"], strange)
    told = [(direction, sentence) for _, direction, sentence in found if "owner" not in sentence]
    assert [direction for direction, _ in told] == [MAY_WIDEN, MAY_WIDEN]
    assert "its moon was nothing, is `full`" in told[0][1]


def test_names_are_told_part_by_part() -> None:
    new = directory()
    new["register"]["feeds"]["x"] = {"kind": "poll", "file": "feeds/x.json"}
    new["register"]["signals"]["trust"]["max_age"] = "1h"
    del new["policies"]["open"]
    found = differences(view(directory()), view(new))
    assert found["feeds"]["added"] == ["x"]
    assert found["signals"] == {"added": [], "removed": [], "changed": ["trust"]}
    assert found["policies"]["removed"] == ["open"]
    assert found["clients"] == found["routes"] == {"added": [], "removed": [], "changed": []}


def test_names_and_sentences_are_bounded() -> None:
    new = view(directory())
    policy = {"text_sha256": "a", "effect": "permit", "mode": "enforce", "signals": []}
    new["described"]["policies"] += [{**policy, "id": f"p{n}"} for n in range(MAX_NAMES + 3)]
    found = differences(view(directory()), new)["policies"]
    assert (len(found["added"]), found["left_out"]) == (MAX_NAMES, 3)
    (word,) = [Word("policy", "x" * 10_000, WIDENS, "y" * 10_000).as_dict()]
    assert len(word["name"]) == len(word["sentence"]) == 601


def test_settings_that_are_held_to_be_harmless_exist() -> None:
    assert {key for key, _ in parts._flat(view(directory())["settings"])} >= parts.HARMLESS
