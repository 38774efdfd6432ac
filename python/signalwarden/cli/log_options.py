"""Options that the verbs on the log share: which records, from which files, and how a verb takes them all at once."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from signalwarden.cli import completing
from signalwarden.cli.options import settings_of
from signalwarden.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalwarden.log_reading.filters import Filters

__all__ = ["Chosen", "LogOption", "chosen_files", "with_filters"]

WHICH: Final = "Which records"
"""Panel of the options that choose."""
_NOTHING: Final = {"deny": False, "allow": False}
"""What a flag says that was not given; other options say None."""


def _option(
    kind: Any, name: str, metavar: str | None, help_: str, complete: Callable[..., Any] | None = None
) -> Any:
    said = typer.Option(name, metavar=metavar, help=help_, autocompletion=complete, rich_help_panel=WHICH)
    return Annotated[kind, said]


_many = functools.partial(_option, list[str] | None)
_one = functools.partial(_option, str | None)
_flag = functools.partial(_option, bool)

_OPTIONS: Final[dict[str, Any]] = {
    "deny": _flag("--deny", None, "Denials alone."),
    "allow": _flag("--allow", None, "Allows alone."),
    "principals": _many(
        "--principal", "GLOB", "Of this SPIFFE ID, or of one that ends so.", completing.principals
    ),
    "signals": _many(
        "--signal", "NAME[:WORD]", "With this signal; WORD is a state or an influence.", completing.signals
    ),
    "reasons": _many("--reason", "REASON", "With this reason.", completing.reasons),
    "actions": _many("--action", "GLOB", "Of this action.", completing.actions),
    "resources": _many("--resource", "GLOB", "On this one, such as `Account::*`.", completing.resources),
    "routes": _many("--route", "FILE:LINE", "By this route; the line alone will do.", completing.routes),
    "tasks": _many("--task", "GLOB", "Of this task, or below it."),
    "hosts": _many("--host", "GLOB", "To this host."),
    "since": _one("--since", "SPAN|TIME", "From `10m` ago on, or from an RFC 3339 time."),
    "until": _one("--until", "SPAN|TIME", "Before then."),
}

LogOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="Read this file in place of the directory's log, plain or gzip; repeat for more.",
    ),
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the options of the panel said."""

    given: dict[str, Any]

    def filters(self) -> Filters:
        """As one question to a record."""
        from signalwarden.log_reading.filters import Filters

        return Filters(**self.given)

    @property
    def any(self) -> bool:
        """Whether anything was chosen."""
        return any(self.given.values())


def with_filters(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of the panel: its parameter `chosen` is made of them."""
    signature = inspect.signature(verb, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "chosen"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=_NOTHING.get(name))
        for name, kind in _OPTIONS.items()
    ]

    @functools.wraps(verb)
    def wrapper(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in _OPTIONS}
        verb(chosen=Chosen({name: value for name, value in given.items() if value}), **arguments)

    kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    wrapper.__signature__ = signature.replace(parameters=[*added, *kept])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [*added, *kept]}
    return wrapper


def chosen_files(config: Path, named: list[Path] | None) -> list[Path]:
    """The files of a log, oldest first: those that were named, or the directory's."""
    from signalwarden.decision_log import log_files

    if not named:
        return log_files(settings_of(config).log_path(config))
    for file in named:
        if not file.is_file():
            raise LogError(
                f"`{file}` can't be read: " + ("it is no file" if file.exists() else "no such file")
            )
    return list(named)
