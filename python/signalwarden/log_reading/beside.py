"""The directory beside a log: what a record points to in it, as long as it is still as it was decided by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from signalwarden import config
from signalwarden.directory import Directory
from signalwarden.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from signalwarden.config import Loaded

__all__ = ["Beside"]

MAX_SOURCE_LINES: Final = 25
"""Of one policy: longer ones are to be read in their file."""


@dataclass(frozen=True)
class Beside:
    """A directory as it is now. `loaded` is None where it can't be loaded; `why_not` says why no source is shown."""

    loaded: Loaded | None
    files: dict[str, bytes]
    path: Path | None

    @staticmethod
    def of(path: Path, now_us: int) -> Beside:
        """Reads it. Never raises for what is wrong with it: the record tells without it, too."""
        read = Directory.read(path)
        try:
            return Beside(config.judge(read, now_us, unapproved=True), read.files, path)
        except ConfigurationError:
            return Beside(None, read.files, path)

    @staticmethod
    def nothing() -> Beside:
        """No directory."""
        return Beside(None, {}, None)

    def is_of(self, revision: object) -> bool:
        """Whether it is still what decided."""
        return self.loaded is not None and self.loaded.configuration.revision == revision

    def why_not(self, revision: object) -> str | None:
        """Why nothing of it is shown beside a record of this revision."""
        if self.is_of(revision):
            return None
        if revision is None:
            return "no configuration was in force"
        if self.loaded is None:
            return (
                "there is no directory to look into"
                if self.path is None
                else "the directory can't be loaded now"
            )
        return f"the directory is at another revision now, {self.loaded.configuration.revision:.12}"

    @cached_property
    def described(self) -> dict[str, Any]:
        """`Configuration.describe()`."""
        return self.loaded.described() if self.loaded else {}

    def contract(self, name: str) -> dict[str, Any] | None:
        """A signal's entry of the register."""
        return next((entry for entry in self.described.get("signals", []) if entry["name"] == name), None)

    def line(self, place: str) -> str | None:
        """The text at `routes.yaml:11`."""
        file, _, number = place.rpartition(":")
        lines = self._lines(file)
        at = int(number) - 1 if number.isdigit() else -1
        return lines[at].strip() if 0 <= at < len(lines) else None

    def policy(self, file: str, line: int) -> list[tuple[int, str]]:
        """The numbered lines of the policy that begins there, to its semicolon."""
        lines = self._lines(file)
        shown: list[tuple[int, str]] = []
        for number, text in enumerate(lines[line - 1 :], line):
            shown.append((number, text))
            if _ends(text):
                return shown
            if len(shown) == MAX_SOURCE_LINES:
                return [*shown, (number + 1, "…")]
        return shown

    def _lines(self, file: str) -> list[str]:
        return self.files.get(file, b"").decode(errors="replace").splitlines()


def _ends(line: str) -> bool:
    """Whether a semicolon stands in it, outside of words and comments."""
    quoted = escaped = False
    for at, letter in enumerate(line):
        if escaped:
            escaped = False
        elif quoted and letter == "\\":
            escaped = True
        elif letter == '"':
            quoted = not quoted
        elif not quoted and letter == ";":
            return True
        elif not quoted and line.startswith("//", at):
            return False
    return False
