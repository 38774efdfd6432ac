"""How `log explain` shows a story: a name for each step, then its lines. Text of records is only ever text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from signalwarden.decision_log.tail import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from signalwarden.log_reading.story import Story
    from signalwarden.log_reading.telling import Step

__all__ = ["as_json", "show"]

NAME_WIDTH = 10


def as_json(told: Story | dict[str, Any]) -> dict[str, Any]:
    """For programs."""
    if isinstance(told, dict):
        return {**told, "steps": [step.as_dict() for step in told["steps"]]}
    return told.as_dict()


def show(out: Console, told: Story | dict[str, Any]) -> None:
    """For people."""
    if isinstance(told, dict):
        _head(out, f"{told['kind']} {told['id']}", told["time"])
        _steps(out, told["steps"])
        return
    record = told.record
    _head(out, f"decision {record.get('decision_id')}", record.get("time"))
    style = "bold red" if told.denied else "bold green"
    out.print(
        Text.assemble(
            (clean(f"{record.get('outcome')} {record.get('reason')}"), style), clean(f": {told.sentence}")
        )
    )
    out.print()
    _steps(out, told.steps)
    out.print()
    for name, lines in (("decided by", told.decided), ("would flip", told.flips), ("to do", [told.runbook])):
        _lines(out, name, [(line, "") for line in lines])
    _lines(out, "look", [(command, "cyan") for command in told.commands])


def _head(out: Console, what: str, when: object) -> None:
    out.print(Text.assemble((clean(what), "bold"), "  ", (clean(when), "dim")))


def _steps(out: Console, steps: Sequence[Step]) -> None:
    for step in steps:
        _lines(out, step.name, [(line.text, line.style) for line in step.lines])


def _lines(out: Console, name: str, lines: Sequence[tuple[str, str]]) -> None:
    for at, (text, style) in enumerate(lines):
        head = f"{name:<{NAME_WIDTH}}  " if at == 0 else " " * (NAME_WIDTH + 2)
        out.print(Text.assemble((head, "bold blue"), (clean(text), style)))
