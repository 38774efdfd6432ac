"""How tests run a verb of the command line in their own process, and what they get: status, output, errors."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from fastapi.testclient import TestClient

from signalwarden import cli
from signalwarden.admin import build
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address
from tests.fake_services import SECRET, FakeServices


class Ran(NamedTuple):
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


class DeskCommands:
    """Runs commands that ask the admin API of a server: desks stand behind it, and no socket between. `admin` is what
    verbs get in place of `admin_of`."""

    def __init__(self, services: FakeServices, capfd: pytest.CaptureFixture[str]) -> None:
        self.services = services
        self._app = build(services)
        self._run = Commands(capfd)

    def admin(self, *_: object) -> AdminClient:
        admin = AdminClient(Address("127.0.0.1", 1), SECRET)
        admin._http = cast("Any", TestClient(self._app, headers={"authorization": f"Bearer {SECRET}"}))
        return admin

    def run(self, *arguments: str) -> Ran:
        return self._run(*arguments)

    def said(self, *arguments: str) -> str:
        status, out, err = self.run(*arguments)
        assert (status, err) == (0, "")
        return out
