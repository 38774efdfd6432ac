"""What the command line says in plain sentences, on standard error. Tables and bars are `terminal`'s: they take a
library that `serve` does without.
"""

from __future__ import annotations

import typer

from signalwarden.errors import ConfigurationError, SignalwardenError, is_error, sentence

__all__ = ["count", "one_sentence", "say"]


def say(text: str) -> None:
    """A sentence on standard error."""
    typer.echo(f"signalwarden: {text}", err=True)


def one_sentence(error: SignalwardenError) -> str:
    """An error on one line; of a directory its first mistake, and how many more there are."""
    if not isinstance(error, ConfigurationError):
        return str(error)
    errors = [finding for finding in error.findings if is_error(finding)]
    first = sentence(errors[0]) if errors else "the directory can't be loaded"
    more = (
        f" (and {count(len(errors) - 1, 'more error')}: see `signalwarden check`)" if len(errors) > 1 else ""
    )
    return f"{first}{more}"


def count(number: int, word: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
