"""What an earlier process had accepted and not settled: which of it the log has already, so that nothing is said twice.

The log and the ring have the same order, so what both have is the log's end. Its lines are read backwards, until one is
not in the ring.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from signalwarden.errors import LogError
from signalwarden.files import make_private_directory, why

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Recovering", "already_written", "pass_over_written", "ring_at"]

BLOCK: Final = 1 << 18
"""Read at once, backwards. What was written and not settled is a quarter of a second's records."""
IDS: Final = ("decision_id", "change_id", "event_id")


class Recovering(Protocol):
    """The part of the engine that holds what was left behind."""

    def recovered(self) -> Sequence[bytes]:
        """Lines without newline, oldest first."""

    def pass_over(self, known: Sequence[int]) -> None:
        """Those of them, by number, that are not to be written again."""

    @property
    def has_lost_records(self) -> bool:
        """Whether some are missing."""


def ring_at(path: Path) -> Path:
    """The path of the ring, in a folder that exists. Raises LogError."""
    try:
        make_private_directory(path.parent)
    except OSError as error:
        raise LogError(f"the ring of the decision log, `{path}`, can't be made: {why(error)}") from error
    return path


def pass_over_written(engine: Recovering, files: Sequence[Path]) -> dict[str, Any] | None:
    """Keeps the engine from giving what the log has already. What a record shall say of it; None if nothing was left
    behind. `files`: those of the log, oldest first; the newest ends with a whole line."""
    recovered = engine.recovered()
    if not recovered and not engine.has_lost_records:
        return None
    known = already_written(recovered, files)
    engine.pass_over(sorted(known))
    return {
        "records": len(recovered) - len(known),
        "already_written": len(known),
        "complete": not engine.has_lost_records,
    }


def already_written(recovered: Sequence[bytes], files: Sequence[Path]) -> set[int]:
    """Which of the recovered lines, by number, stand at the end of the log."""
    lines = [_read(line) for line in recovered]
    numbers = {identity: at for at, line in enumerate(lines) if (identity := _identity(line)) is not None}
    alike = _Alike(lines)
    known: set[int] = set()
    for raw in _backwards(files):
        line = _read(raw)
        at = numbers.get(_identity(line) or "")
        if at is None:
            break
        known.add(at)
        folded = line.get("folded")
        if isinstance(folded, dict):
            known.update(alike.run(at, folded))
    return known


class _Alike:
    """Finds the denials that one line stands for: the next so many that are alike, its own included."""

    def __init__(self, lines: Sequence[dict[str, Any]]) -> None:
        self._lines = lines
        self._numbers: dict[bytes, list[int]] | None = None

    def run(self, first: int, folded: dict[str, Any]) -> list[int]:
        """None where it is not sure: what is written twice can be told by its id, what is lost can't."""
        if self._numbers is None:
            numbers = defaultdict(list)
            for at, line in enumerate(self._lines):
                numbers[_likeness(line)].append(at)
            self._numbers = numbers
        alike = self._numbers[_likeness(self._lines[first])]
        count = folded.get("count")
        run = alike[alike.index(first) :][: count if isinstance(count, int) else 0]
        # What is left out or redacted in records may tell apart what looks alike here.
        return run if run and _identity(self._lines[run[-1]]) == folded.get("last_id") else []


def _likeness(line: dict[str, Any]) -> bytes:
    """All that denials share which the core folds: its `record/fold.rs` says what."""
    request, policies = line.get("request") or {}, line.get("policies") or {}
    told = ("method", "host", "path", "args", "action", "resource", "route")
    return orjson.dumps(
        [
            [line.get(key) for key in ("outcome", "reason", "detail", "enforced")],
            [request.get(key) for key in told],
            (line.get("principal") or {}).get("id"),
            (line.get("grant") or {}).get("sha256"),
            (line.get("approval") or {}).get("id"),
            policies.get("revision"),
            [policy.get("id") for policy in policies.get("determining") or []],
        ],
        option=orjson.OPT_SORT_KEYS,
    )


def _read(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(orjson.JSONDecodeError):
        read = orjson.loads(line)
        if isinstance(read, dict):
            return read
    return {}


def _identity(line: dict[str, Any]) -> str | None:
    return next((line[key] for key in IDS if isinstance(line.get(key), str)), None)


def _backwards(files: Iterable[Path]) -> Iterator[bytes]:
    """The lines of the files, the last one first."""
    for file in reversed([*files]):
        with contextlib.suppress(FileNotFoundError), file.open("rb") as opened:
            position = opened.seek(0, os.SEEK_END)
            rest = b""
            while position > 0:
                size = min(BLOCK, position)
                position -= size
                opened.seek(position)
                first, *whole = (opened.read(size) + rest).split(b"\n")
                yield from (line for line in reversed(whole) if line)
                rest = first
            if rest:
                yield rest
