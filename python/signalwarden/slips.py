"""A mistake of the settings before its place is looked up, and what is read from settings that may be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Slip", "list_of", "map_of"]


@dataclass(frozen=True, slots=True)
class Slip:
    """A mistake before its place is looked up."""

    loc: tuple[str | int, ...]
    code: str
    message: str
    severity: Literal["error", "warning"] = "error"


def list_of(raw: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; empty if it is none."""
    value = raw.get(key)
    return value if isinstance(value, list) else []


def map_of(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The map under a key; empty if it is none."""
    value = raw.get(key)
    return value if isinstance(value, dict) else {}
