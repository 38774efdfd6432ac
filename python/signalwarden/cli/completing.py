"""What a shell may offer after a verb or an option: names from the directory, reasons, ids from the end of the log.

The shell asks while somebody types: nothing here raises, and what can't be read offers nothing.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from typer import Context

from signalwarden.cli.options import HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["actions", "ids", "principals", "reasons", "resources", "routes", "signals"]

MAX_IDS: Final = 50
"""Ids of the newest records: who asks for an older one has it from elsewhere."""
MAX_READ: Final = 2_000
"""Records of the log's end that are looked at for names."""

Offer = list[tuple[str, str]]
"""Words, each with a few words of help."""


def _offers(find: Callable[[Path, str], Iterable[tuple[str, str]]]) -> Callable[[Context, str], Offer]:
    def complete(ctx: Context, incomplete: str) -> Offer:
        given = ctx.params.get("config")
        directory = given if isinstance(given, Path) else HERE
        found: dict[str, str] = {}
        with contextlib.suppress(Exception):
            for word, help_ in find(directory, incomplete):
                if word.startswith(incomplete):
                    found.setdefault(word, help_)
        return sorted(found.items())

    return complete


@_offers
def reasons(_directory: Path, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Of the closed list."""
    from signalwarden import _core

    yield from ((code, sentence) for code, _, _, live, sentence in _core.reasons() if live)


@_offers
def actions(directory: Path, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Of the directory's routes."""
    for route in _described(directory)["routes"]:
        yield route["action"], route["match"]


@_offers
def routes(directory: Path, _incomplete: str) -> Iterator[tuple[str, str]]:
    """By file and line."""
    for route in _described(directory)["routes"]:
        yield route["route"], f"{route['match']} {route['action']}"


@_offers
def signals(directory: Path, incomplete: str) -> Iterator[tuple[str, str]]:
    """Of the register; after a colon, states and influences."""
    from signalwarden.log_reading.filters import INFLUENCES, STATES

    for contract in _described(directory)["signals"]:
        name = contract["name"]
        yield name, contract["description"]
        if incomplete.startswith(f"{name}:"):
            yield from ((f"{name}:{word}", "state") for word in STATES)
            yield from ((f"{name}:{word}", "influence") for word in INFLUENCES)


@_offers
def principals(directory: Path, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Of entities.json, and of the log's end."""
    for principal in _described(directory).get("principals", []):
        yield principal["principal"], "entities.json"
    for record in _newest(directory, MAX_READ):
        if isinstance(principal := record.get("principal"), dict):
            yield str(principal.get("id")), "of the log"


@_offers
def resources(directory: Path, _incomplete: str) -> Iterator[tuple[str, str]]:
    """Of the log's end."""
    for record in _newest(directory, MAX_READ):
        request = record.get("request")
        if isinstance(request, dict) and isinstance(request.get("resource"), str):
            yield request["resource"], "of the log"


@_offers
def ids(directory: Path, incomplete: str) -> Iterator[tuple[str, str]]:
    """Of the newest records, or of those that begin as was typed."""
    found = (
        (str(record.get("decision_id") or record.get("change_id") or record.get("event_id")), _told(record))
        for record in _newest(directory, MAX_READ)
    )
    yield from itertools.islice((entry for entry in found if entry[0].startswith(incomplete)), MAX_IDS)


def _told(record: dict[str, Any]) -> str:
    if record.get("kind") != "decision":
        return str(record.get(str(record.get("kind"))))
    return f"{record.get('outcome')} {record.get('reason')}"


def _described(directory: Path) -> dict[str, Any]:
    from signalwarden import config
    from signalwarden.decision_log import now_us

    return config.judge_described(config.Directory.read(directory), now_us(), unapproved=True)[1]


def _newest(directory: Path, count: int) -> list[dict[str, Any]]:
    from signalwarden.cli.options import settings_of
    from signalwarden.decision_log import tail

    with tail.Tail(settings_of(directory).log_path(directory)) as log:
        return [record for _, record in reversed(log.last(count, lambda _: True))]
