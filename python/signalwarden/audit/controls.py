"""The table of controls, read from `controls.yaml` beside this file: typed, and strict about its own mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final

import orjson

from signalwarden import _core

__all__ = ["Control", "Framework", "Role", "frameworks", "invariants"]

FILE: Final = "controls.yaml"


class Role(StrEnum):
    """What part signalwarden has in a control."""

    ENFORCES = "enforces"
    """It makes it so."""
    EVIDENCES = "evidences"
    """It can show it; the cause lies elsewhere."""
    NONE = "none"
    """Nothing here does it."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control of a standard."""

    id: str
    framework: str
    title: str
    role: Role
    control: str
    """What is done about it here."""
    part: bool = False
    """In part only."""
    queries: tuple[str, ...] = ()
    weakened_by: tuple[str, ...] = ()
    invariants: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    """What other lists call it."""


@dataclass(frozen=True, slots=True)
class Framework:
    """One standard."""

    id: str
    title: str
    note: str
    controls: tuple[Control, ...]


@cache
def frameworks() -> dict[str, Framework]:
    """By name, in the order of the file."""
    table = _table()
    controls = [_control(entry) for entry in table["controls"]]
    return {
        name: Framework(name, said["title"], said["note"], tuple(c for c in controls if c.framework == name))
        for name, said in table["frameworks"].items()
    }


@cache
def invariants() -> dict[str, str]:
    """The promises that hold whatever a log says, by their numbers."""
    return dict(_table()["invariants"])


def _control(entry: dict[str, Any]) -> Control:
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Control(**{**entry, **lists, "role": Role(entry["role"])})


def _table() -> dict[str, Any]:
    text = (resources.files("signalwarden.audit") / FILE).read_text(encoding="utf-8")
    document = _core.parse_yaml(FILE, text)
    if document.json is None or document.findings:
        raise ValueError(f"{FILE}: {[finding.message for finding in document.findings]}")
    table: dict[str, Any] = orjson.loads(document.json)
    return table
