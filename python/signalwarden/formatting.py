"""Laying policy files out as Cedar's own formatter does. A file is replaced whole or not at all, and one that can't be
read as policies is left alone."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signalwarden import _core
from signalwarden.directory import MAX_DEPTH, MAX_FILE_BYTES
from signalwarden.errors import BadInputError, ConfigurationError, FindingLike, Problem
from signalwarden.files import read_regular, sync_directory, why

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Formatted", "files", "run"]

ENDING: Final = ".cedar"


@dataclass(slots=True)
class Formatted:
    """What became of the files."""

    changed: list[Path] = field(default_factory=list)
    """Were not laid out so; they are now, unless it was only asked."""
    unchanged: int = 0
    findings: list[FindingLike] = field(default_factory=list)
    """Why others could not be formatted."""


def files(paths: Iterable[Path]) -> list[Path]:
    """The policy files that are named, and those below directories that are, each once. Raises BadInputError."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_below(path, 0)))
        elif path.name.endswith(ENDING):
            found[path] = None
        else:
            raise BadInputError(
                f"`{path}` is not formatted: expected a directory, or a file that ends in `{ENDING}`"
            )
    return list(found)


def run(paths: Iterable[Path], *, check: bool) -> Formatted:
    """Formats files. `check`: only asks which would change."""
    done = Formatted()
    for path in paths:
        try:
            before = read_regular(path, MAX_FILE_BYTES)
            after = _core.format_cedar(str(path), before.decode("utf-8")).encode("utf-8")
            if after == before:
                done.unchanged += 1
                continue
            if not check:
                _replace(path, after)
            done.changed.append(path)
        except ConfigurationError as error:
            done.findings += error.findings
        except UnicodeDecodeError:
            done.findings.append(Problem("error", str(path), 0, 0, "not_utf8", "expected UTF-8 text"))
        except OSError as error:
            message = f"the file can't be read or written: {why(error)}"
            done.findings.append(Problem("error", str(path), 0, 0, "unreadable", message))
    return done


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Sorted by name, and no deeper than a directory is read. What begins with a dot is an editor's or a mount's own;
    links to folders are not followed."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BadInputError(f"`{folder}` can't be read: {why(error)}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if depth < MAX_DEPTH and not entry.is_symlink():
                yield from _below(entry, depth + 1)
        elif entry.name.endswith(ENDING):
            yield entry


def _replace(path: Path, content: bytes) -> None:
    """Whole and durably, with the mode that the file has. A link stays one: what it leads to is replaced."""
    target = path.resolve(strict=True)
    # With a dot before it, so that no server that watches the directory reads half of it.
    partial = target.with_name(f".{target.name}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), target.stat().st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
    sync_directory(target.parent)
