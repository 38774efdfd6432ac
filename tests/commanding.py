"""How tests run a verb of the command line in their own process, and what they get: status, output, errors."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from signalwarden import cli


@dataclass(frozen=True)
class Ran:
    """What came of a command."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def ids(self) -> list[str]:
        """Of decisions that were printed as JSON lines."""
        return [json.loads(line)["decision_id"] for line in self.out.splitlines()]

    @property
    def sentence(self) -> str:
        """An error as users get it: status 2, nothing on standard output, one line on standard error."""
        assert (self.status, self.out) == (2, ""), self
        assert self.err.startswith("signalwarden: ")
        assert self.err.count("\n") == 1, self.err
        return self.err


class Commands:
    """Runs commands; what they print is caught, and never holds a traceback."""

    def __init__(self, capfd: pytest.CaptureFixture[str], directory: Path | None = None) -> None:
        self._capfd = capfd
        self.directory = directory

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        """With `--config` of the directory, if there is one and none is given."""
        given = [str(argument) for argument in arguments]
        if self.directory is not None and "--config" not in given:
            given += ["--config", str(self.directory)]
        self._capfd.readouterr()
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
        try:
            status = cli._run(given)
        finally:
            sys.stdin = before
        out, err = self._capfd.readouterr()
        assert "Traceback" not in out + err
        return Ran(status, out, err)
