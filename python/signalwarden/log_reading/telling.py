"""What stories are made of: steps, their lines, and how values, ages and spans stand in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

__all__ = ["Line", "Step", "age", "entries_of", "joined", "pairs", "shown", "text_of"]

MAX_VALUE: Final = 80
"""Characters of one value: a set of a thousand zones is to be looked up in the record."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a step; `style` as rich names it."""

    text: str
    style: str = ""


@dataclass(slots=True)
class Step:
    """One station of the way."""

    name: str
    lines: list[Line] = field(default_factory=list)

    def say(self, text: str, style: str = "") -> None:
        """One more line."""
        self.lines.append(Line(text, style))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"step": self.name, "told": [line.text for line in self.lines]}


def entries_of(value: object) -> list[Mapping[str, Any]]:
    """The maps of a list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """As text; empty for nothing."""
    return "" if value is None else str(value)


def shown(value: object) -> str:
    """A value as files write it, cut if it is long."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def pairs(values: Mapping[str, Any]) -> str:
    """`amount=1250, currency="EUR"`."""
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items())


def joined(*parts: str | None, by: str = ", ") -> str:
    """What is there of them."""
    return by.join(part for part in parts if part)


def age(milliseconds: object) -> str | None:
    """`0.7 s`, `12 min`, `3 h`, `2 d`."""
    if not isinstance(milliseconds, int | float):
        return None
    seconds = milliseconds / 1_000
    for unit, size, least in (("d", 86_400, 172_800), ("h", 3_600, 7_200), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
