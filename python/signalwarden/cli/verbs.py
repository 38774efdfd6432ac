"""Which file of this folder has which verb. A verb is loaded when it is called, so that `serve` holds no other in
memory; the help of the top level shows all of them, and loads all.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

__all__ = ["VERBS", "Verbs"]

VERBS: Final[Mapping[str, tuple[str, ...]]] = {
    "init": ("directory",),
    "check": ("directory",),
    "decide": ("directory",),
    "test": ("testing",),
    "fmt": ("formatting",),
    "diff": ("diff",),
    "serve": ("server",),
    "demo": ("demo",),
    "revoke": ("revocations",),
    "revocations": ("revocations",),
    "report": ("report",),
    "signals": ("signals", "overrides", "register", "approve", "publishers", "streams"),
    "tasks": ("tasks",),
    "workflows": ("tasks",),
    "approvals": ("approvals",),
    "log": ("log",),
    "envoy": ("envoy",),
}
"""In the order of `--help`. Each file adds its verbs with `add(root)`; several together make up a group."""


class Verbs(TyperGroup):
    """The top level of the command line."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Loading()  # type: ignore[assignment]  # nobody adds to it


class _Loading(Mapping[str, Any]):
    """Verbs by name. Names are known; what they do is loaded when it is asked for."""

    def __getitem__(self, verb: str) -> Any:
        return _commands(VERBS[verb])[verb]

    def __contains__(self, verb: object) -> bool:
        return verb in VERBS

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


@functools.cache
def _commands(files: tuple[str, ...]) -> Mapping[str, Any]:
    """A file adds its verbs once: those that add to another's group would stand in it twice."""
    root = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    for file in files:
        importlib.import_module(f"signalwarden.cli.{file}").add(root)
    return get_group(root).commands
