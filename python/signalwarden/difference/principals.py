"""What a change of a principal's record widens or narrows: retirement, environment, the end of a legacy one.

Told are records with something that can stand against a principal. That anything else of the entities has changed
is one sentence of its own (`parts.entities`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from signalwarden.difference.words import Direction, Entry, Said, was_is

__all__ = ["RULES", "changed"]

WIDENS, MAY_WIDEN, NARROWS, NEUTRAL = Direction

Rule = Callable[[str, str | None, str | None], Said]
"""Name of the principal, what its record said, what it says."""


def changed(old: list[Entry], new: list[Entry]) -> Iterator[tuple[str, Direction, str]]:
    """By principal. One that is gone from the file is held against a record that says nothing."""
    before, after = ({entry["principal"]: entry for entry in entries} for entries in (old, new))
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, {}), after.get(name, {})
        for key in sorted(was.keys() | now.keys()):
            # An owner alone is not told of a record that has nothing else to say.
            if key != "principal" and was.get(key) != now.get(key) and (key != "owner" or (was and now)):
                rule = RULES.get(key, _unknown(key))
                for direction, sentence in rule(name, was.get(key), now.get(key)):
                    yield name, direction, sentence


def _retired_at(name: str, was: str | None, now: str | None) -> Said:
    said = f"its retired_at {was_is(was, now)}"
    if was is None:
        yield NARROWS, f"`{name}` is denied once it is retired: {said}"
    elif now is None:
        yield WIDENS, f"`{name}` is not retired any more: {said}"
    else:
        yield _later(was, now), f"`{name}` is retired at another time: {said}"


def _legacy_until(name: str, was: str | None, now: str | None) -> Said:
    said = f"its legacy_until {was_is(was, now)}"
    if was is None:
        yield NARROWS, f"`{name}` is a legacy principal, for coarse routes alone and until its end: {said}"
    elif now is None:
        yield WIDENS, f"`{name}` is no legacy principal any more, bound to coarse routes and an end: {said}"
    else:
        direction = _later(was, now)
        what = {WIDENS: "for longer", NARROWS: "for a shorter time"}.get(direction, "until another time")
        yield direction, f"the legacy principal `{name}` is borne {what}: {said}"


def _later(was: str, now: str) -> Direction:
    """What moving an end does."""
    try:
        return WIDENS if datetime.fromisoformat(now) > datetime.fromisoformat(was) else NARROWS
    except ValueError:  # a year of five digits
        return MAY_WIDEN


def _environment(name: str, was: str | None, now: str | None) -> Said:
    said = f"its environment {was_is(was, now)}"
    if was is None:
        yield NARROWS, f"routes of other environments deny `{name}`: {said}"
    elif now is None:
        yield WIDENS, f"routes of every environment take `{name}`: {said}"
    else:
        yield MAY_WIDEN, f"`{name}` belongs to another environment: {said}"


def _owner(name: str, was: str | None, now: str | None) -> Said:
    yield NEUTRAL, f"others answer for `{name}`: its owner {was_is(was, now)}"


def _unknown(key: str) -> Rule:
    def rule(name: str, was: str | None, now: str | None) -> Said:
        yield MAY_WIDEN, f"`{name}` means something else: its {key} {was_is(was, now)}"

    return rule


RULES: Final[dict[str, Rule]] = {
    "retired_at": _retired_at,
    "legacy_until": _legacy_until,
    "environment": _environment,
    "owner": _owner,
}
