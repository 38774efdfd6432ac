"""The report: each control with its standing, what that rests on, and what weakens it. As one document, for all forms.

The standing is made here and nowhere else:

- `not covered`: nothing here implements the control, or nothing in this directory switches on what does.
- `no data`: something does, and no record of the period (or entry of the directory) says anything about it.
- `enforced`, `evidenced`: something does, and there is data. Never "passed": what it is worth, a reader judges.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from signalwarden.audit import queries_access, queries_rules
from signalwarden.audit.controls import Control, Framework, Role, invariants
from signalwarden.audit.evidence import MAX_ROWS, Evidence
from signalwarden.audit.ground import Weakness
from signalwarden.audit.querying import QUERIES
from signalwarden.decision_log import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from signalwarden.audit.gathered import Gathered
    from signalwarden.audit.ground import Ground
    from signalwarden.log_reading.records import Faults

__all__ = ["Standing", "build"]

VERSION: Final = 1
QUERIES_FROM: Final = (queries_access, queries_rules)
"""Named so that they are loaded: each lists its queries."""


class Standing(StrEnum):
    """How a control stands."""

    ENFORCED = "enforced"
    EVIDENCED = "evidenced"
    NO_DATA = "no data"
    NOT_COVERED = "not covered"


def build(
    ground: Ground,
    gathered: Gathered,
    faults: Faults,
    chosen: Sequence[Framework],
    *,
    since: str | None,
    until: str | None,
    files: Sequence[str],
) -> dict[str, Any]:
    """Asks every query once, and makes the document of it."""
    names = {name for framework in chosen for control in framework.controls for name in control.queries}
    answers = {name: QUERIES[name](ground, gathered) for name in sorted(names)}
    told = [_framework(framework, ground, answers) for framework in chosen]
    return {
        "v": VERSION,
        "made_at": rfc3339(ground.now_us),
        "directory": str(ground.loaded.root),
        "trust_domain": ground.settings.trust_domain,
        "revision": ground.revision,
        "period": {"since": since, "until": until, "from": gathered.period.first, "to": gathered.period.last},
        "log": {
            "files": list(files),
            "records": gathered.lines,
            "decisions": gathered.all.count,
            "skipped": faults.as_dict(),
        },
        "findings": [_weakness(one) for one in _of_all(ground, gathered, faults)],
        "frameworks": told,
    }


def _of_all(ground: Ground, gathered: Gathered, faults: Faults) -> Iterable[Weakness]:
    """What a reader must know of every figure."""
    for sentence in faults.sentences():
        yield Weakness("damaged", sentence)
    if gathered.last_revision not in (None, ground.revision):
        text = (
            f"the directory is at revision {ground.revision[:12]}, the last record was decided by "
            f"{str(gathered.last_revision)[:12]}: files and lines are those of the directory as it is now"
        )
        yield Weakness("revision", text)
    if len(gathered.revisions) > 1:
        yield Weakness("revision", f"{len(gathered.revisions)} revisions decided in the period")
    if gathered.without_record:
        text = f"{gathered.without_record} calls were answered `log_unavailable` and have no record"
        yield Weakness("records_lost", text)
    missed = max(gathered.principals.missed, gathered.actions.missed, gathered.signals.missed)
    if missed:
        text = f"there were too many principals, actions or signals to tell all apart: a count may lack up to {missed}"
        yield Weakness("bounded", text)
    if gathered.tasks_left_out:
        text = (
            f"there were too many tasks to tell all apart: {gathered.tasks_left_out} uses are not attributed"
        )
        yield Weakness("bounded", text)
    if ground.kept.why_not:
        yield Weakness("state", f"the state was not read: {ground.kept.why_not}")
    yield from ground.weakening(("insecure", "ungoverned"))


def _framework(framework: Framework, ground: Ground, answers: dict[str, Evidence]) -> dict[str, Any]:
    controls = [_control(control, ground, answers) for control in framework.controls]
    summary = {standing.value: sum(c["standing"] == standing for c in controls) for standing in Standing}
    return {
        "id": framework.id,
        "title": framework.title,
        "note": framework.note,
        "summary": summary,
        "controls": controls,
    }


def _control(control: Control, ground: Ground, answers: dict[str, Evidence]) -> dict[str, Any]:
    evidence = Evidence(lacking="nothing here implements it" if control.role is Role.NONE else None)
    for at, name in enumerate(control.queries):
        # A copy: an answer serves several controls.
        evidence = dataclasses.replace(answers[name]) if at == 0 else evidence.with_(answers[name])
    if "unenforced" in control.weakened_by and control.role is Role.ENFORCES and ground.lets_all_pass:
        evidence.lacking = "every route says `enforce: false`: what would be denied is let pass"
    lost = sorted(ground.suspended.intersection(control.invariants))
    if lost and control.role is Role.ENFORCES:
        # It rests on a promise that the settings take back: who reads that it is enforced would be misled.
        evidence.lacking = f"`ungoverned: true` suspends {' and '.join(lost)}, on which it rests"
    standing = _standing(control, evidence)
    head = {
        "id": control.id,
        "title": control.title,
        "role": control.role.value,
        "in_part": control.part,
        "control": control.control,
        "standing": standing.value,
        "why": _why(standing, evidence),
        "neighbours": list(control.neighbours),
    }
    if control.role is Role.NONE:
        return {**head, "by": [], "figures": [], "tables": [], "findings": []}
    tags = (*control.weakened_by, "ungoverned") if lost else control.weakened_by
    weakened = [*evidence.weakened, *ground.weakening(tags)]
    return {
        **head,
        "by": [] if standing is Standing.NOT_COVERED else _rests_on(control, evidence, ground.suspended),
        "figures": [figure.as_dict() for figure in evidence.figures],
        "tables": [table.as_dict() for table in evidence.tables],
        "findings": _cut([_weakness(one) for one in weakened]),
    }


def _standing(control: Control, evidence: Evidence) -> Standing:
    if evidence.lacking is not None:
        return Standing.NOT_COVERED
    if evidence.seen == 0:
        return Standing.NO_DATA
    return Standing.ENFORCED if control.role is Role.ENFORCES else Standing.EVIDENCED


def _why(standing: Standing, evidence: Evidence) -> str:
    match standing:
        case Standing.NOT_COVERED:
            return str(evidence.lacking)
        case Standing.NO_DATA:
            return "no record of the period and no entry of the directory says anything about it"
    return (
        "one record or entry bears on it"
        if evidence.seen == 1
        else f"{evidence.seen:,} records or entries bear on it"
    )


def _rests_on(control: Control, evidence: Evidence, suspended: frozenset[str]) -> list[dict[str, Any]]:
    """What does it: places of the directory, then what holds whatever a log says."""
    places = [{"kind": "directory", "what": what, "at": at} for what, at in evidence.places]
    held = [
        {"kind": "invariant", "what": invariants()[name], "at": name}
        for name in control.invariants
        if name not in suspended
    ]
    tests = [{"kind": "test", "what": name, "at": "tests"} for name in control.tests]
    return [*_cut(places), *held, *tests]


def _cut(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first of each kind; then one that says how many more there are."""
    shown: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for entry in entries:
        kind = entry["kind"]
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= MAX_ROWS:
            shown.append(entry)
    more = [(kind, number - MAX_ROWS) for kind, number in counts.items() if number > MAX_ROWS]
    return [*shown, *({"kind": kind, "what": f"and {number} more", "at": None} for kind, number in more)]


def _weakness(weakness: Weakness) -> dict[str, Any]:
    return {"kind": weakness.tag, "what": weakness.text, "at": weakness.at}
