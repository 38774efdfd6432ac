"""What a query answers with: figures, tables, what the answer rests on, and what weakens it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from signalwarden.audit.ground import Weakness

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


__all__ = ["MAX_ROWS", "Evidence", "Figure", "Table"]

MAX_ROWS: Final = 12
"""Rows of a table, and places of one kind: who needs all of them asks the log."""

Value = int | float | str | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, or one word."""

    label: str
    value: Value

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"label": self.label, "value": self.value}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, of which the last column is a number where there is a bar to draw."""

    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    left_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "label": self.label,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "left_out": self.left_out,
        }


@dataclass(slots=True)
class Evidence:
    """The answer of one query, or of several together."""

    seen: int = 0
    """Records, or entries of the directory, that say something about it. None: there is no data."""
    lacking: str | None = None
    """Why nothing of this directory does it, where that is so."""
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    places: list[tuple[str, str]] = field(default_factory=list)
    """What does it, and where it stands: (`forbid no-refund-above-500`, `policies/refunds.cedar:35`)."""
    weakened: list[Weakness] = field(default_factory=list)
    """By what the records show; what the directory shows is added by the kinds that a control names."""

    def figure(self, label: str, value: Value) -> Evidence:
        """One more."""
        self.figures.append(Figure(label, value))
        return self

    def table(self, label: str, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> Evidence:
        """One more, of its first rows; none without rows."""
        every = [tuple(row) for row in rows]
        if every:
            left_out = max(0, len(every) - MAX_ROWS)
            self.tables.append(Table(label, tuple(columns), tuple(every[:MAX_ROWS]), left_out))
        return self

    def place(self, what: str, at: str) -> Evidence:
        """One more."""
        self.places.append((what, at))
        return self

    def with_(self, other: Evidence) -> Evidence:
        """Both together: data of either. Nothing lacks while one of them does it; what the other lacks is then said."""
        both = Evidence(
            self.seen + other.seen,
            self.lacking if self.lacking is not None and other.lacking is not None else None,
            _once(self.figures, other.figures),
            _once(self.tables, other.tables),
            _once(self.places, other.places),
            _once(self.weakened, other.weakened),
        )
        lacks = [one.lacking for one in (self, other) if one.lacking is not None]
        if len(lacks) == 1:
            both.weakened.append(Weakness("in_part", f"in part alone: {lacks[0]}"))
        return both


def _once(left: list[Any], right: list[Any]) -> list[Any]:
    return [*left, *(one for one in right if one not in left)]
