"""What is new about questions since the last look, in few lines: who is asked too often no longer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["QUIET_S", "News", "NewsLine"]

QUIET_S: Final = 30.0
"""How long one requester's flood is not told of again."""


@dataclass(frozen=True, slots=True)
class NewsLine:
    """One line for people, and the same for programs."""

    text: str
    told: dict[str, Any]


class News:
    """Remembers what it has told. The server shows a few questions of each requester and counts the rest."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._floods: dict[tuple[str, str, str | None], tuple[int, float]] = {}
        """How many questions a group had when it was told of, and when that was."""

    def of(self, answer: dict[str, Any], now: float) -> list[NewsLine]:
        """Lines about the pending questions of one look, at this moment of a stopwatch."""
        shown = {question["approval_id"]: question for question in answer["approvals"]}
        lines = [_asked(question) for name, question in shown.items() if name not in self._told]
        lines += [_ended(name) for name in sorted(self._told - shown.keys())]
        self._told = set(shown)
        for group in answer["groups"]:
            lines.extend(self._flood(group, list(shown.values()), now))
        live = {_key(group) for group in answer["groups"]}
        self._floods = {key: told for key, told in self._floods.items() if key in live}
        return lines

    def _flood(self, group: dict[str, Any], shown: list[dict[str, Any]], now: float) -> list[NewsLine]:
        one_by_one = sum(_key(question) == _key(group) for question in shown)
        count, since = self._floods.get(_key(group), (one_by_one, now - QUIET_S))
        if group["count"] <= max(count, one_by_one) or now - since < QUIET_S:
            return []
        self._floods[_key(group)] = group["count"], now
        text = (
            f"{group['requester']} asks {group['count']} times for {group['action']}"
            f" (task {group['task_id'] or '-'}): see `signalwarden approvals list --requester`"
        )
        return [NewsLine(text, {"news": "many", **group})]


def _key(entry: dict[str, Any]) -> tuple[str, str, str | None]:
    return entry["requester"], entry["action"], entry["task_id"]


def _asked(question: dict[str, Any]) -> NewsLine:
    says = f": {'; '.join(question['words'])}" if question["words"] else ""
    text = (
        f"{question['approval_id']}  {question['requester']} asks for {question['action']} with "
        f"{question['resource']}{says} (until {question['expires_at']})"
    )
    return NewsLine(text, {"news": "asked", **question})


def _ended(approval_id: str) -> NewsLine:
    return NewsLine(f"{approval_id}  is answered or over", {"news": "ended", "approval_id": approval_id})
