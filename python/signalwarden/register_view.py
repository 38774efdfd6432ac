"""The register on a terminal: the list of signals, and the path of one as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from signalwarden.decision_log.tail import clean
from signalwarden.register import json_text, source_details, source_text, span_text, states_text

__all__ = ["path_tree", "register_table"]

_INFLUENCE = {"grant": "green", "restrict": "yellow", "observe": "dim"}
_COLUMNS = (
    "name", "influence", "owner", "purpose", "sources", "read by", "subjects", "freshest", "oldest", "last minutes",
)  # fmt: skip


def register_table(register: Mapping[str, Any]) -> Table:
    """One row a signal: who answers for it, where it comes from, who reads it, and what is live."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "influence"))
    for contract in register["signals"]:
        live = contract.get("live") or {}
        table.add_row(
            clean(contract["name"]),
            Text(clean(contract["influence"]), _INFLUENCE.get(contract["influence"], "red")),
            clean(contract["owner"]),
            clean(contract["purpose"]),
            clean(", ".join(_source(source) for source in contract["sources"])),
            clean(", ".join(contract["read_by"])) or "-",
            clean(live.get("subjects", "-")),
            _ago(register["time"], live.get("freshest")),
            _ago(register["time"], live.get("oldest")),
            clean(states_text(live.get("recent"))),
        )
    return table


def path_tree(path: Mapping[str, Any]) -> Tree:
    """Source → signal → policies → actions, as branches of one tree."""
    contract = path["signal"]
    head = f"{contract['name']}  {contract['type']} about {contract['subject']}, influence {contract['influence']}"
    tree = Tree(Text(clean(head), "bold"))
    for text in _about(contract):
        tree.add(_text(text))
    _branch(tree, "comes from", _sources(path))
    _branch(tree, "read by", map(_policy, path["policies"]), none="no policy")
    actions = tree.add(_text("may influence"))
    for action in path["actions"]:
        below = actions.add(_text(f"{action['action']}  tier {action['tier']}"))
        for route in action["routes"]:
            below.add(_text(_route(route)))
    _branch(tree, "declared exceptions", path["exceptions"], none="none")
    _branch(tree, "live", _live(contract.get("live"), path["time"]))
    return tree


def _about(contract: Mapping[str, Any]) -> Iterable[str]:
    yield str(contract["description"])
    yield f"owner {contract['owner']}, review by {contract['review_by']}"
    yield f"purpose: {contract['purpose']}"
    age = contract.get("max_age_ms")
    counted = any(source["kind"] == "derived" for source in contract["sources"])
    as_old = "counted at each decision" if counted else "rides on the request"
    yield as_old if age is None else f"fresh for {span_text(age)}"
    why = contract.get("justification")
    yield f"when unavailable: {contract['when_unavailable']}" + (f", because {why}" if why else "")
    for key in ("adverse", "corroborate"):
        if contract.get(key):
            yield f"{key}: {json_text(contract[key])}"
    if contract.get("approvers"):
        yield "approved by " + ", ".join(str(approver["id"]) for approver in contract["approvers"])


def _source(source: Mapping[str, Any]) -> str:
    return f"{source_text(source)} ({source['assurance']})"


def _sources(path: Mapping[str, Any]) -> Iterable[str]:
    contract = path["signal"]
    if len(contract["sources"]) > 1:
        yield f"merge: {contract.get('merge')}"
    for source in contract["sources"]:
        yield f"{_source(source)} {source_details(source)}".rstrip()
    for feed in path["feeds"]:
        settings = {key: value for key, value in feed.items() if key not in ("feed", "kind", "line")}
        yield f"feed {feed['feed']}, signals.yaml:{feed['line']}: {json_text(settings)}"


def _policy(policy: Mapping[str, Any]) -> str:
    does = " ".join(str(policy[key]) for key in ("effect", "mode") if policy.get(key))
    return f"{policy['id']}  {policy['file']}:{policy['line']}  {does}".rstrip()


def _route(route: Mapping[str, Any]) -> str:
    aside = "" if route.get("enforce", True) else "  not enforced"
    return f"{route['match']}  {route['route']}{aside}"


def _live(live: Mapping[str, Any] | None, time: str) -> Iterable[str]:
    if live is None:
        yield "unknown: the directory alone was asked"
        return
    if "subjects" in live:
        age = f"freshest {_ago(time, live.get('freshest'))}, oldest {_ago(time, live.get('oldest'))}"
        yield f"subjects: {live['subjects']}, {age}"
    yield f"states in the last minutes: {states_text(live.get('recent'))}"
    yield f"states since the start: {states_text(live.get('states'))}"
    yield f"refused since the start: {states_text(live.get('rejected'))}"


def _branch(tree: Tree, title: str, lines: Iterable[str], none: str | None = None) -> None:
    branch = tree.add(_text(title))
    written = list(lines)
    for line in written or ([none] if none else []):
        branch.add(_text(line))


def _text(text: str) -> Text:
    return Text(clean(text))


def _ago(now: str, then: str | None) -> str:
    """How long before the time of the answer; clocks of two machines are not compared."""
    if then is None:
        return "-"
    seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(then)).total_seconds()
    if abs(seconds) < 120:
        return f"{seconds:.1f}s ago"
    return f"{seconds / 60:.0f}m ago" if abs(seconds) < 7_200 else f"{seconds / 3_600:.0f}h ago"
