"""Reading the files of a configuration directory: bounded, regular files only, nothing from outside it.

`read` gives contents and what went wrong; `glance` gives names, sizes and times alone, which is cheap enough to ask
again and again.

Names that start with a dot are skipped: they are editors' temporary files and the inner links of a mounted
Kubernetes ConfigMap, which would show every policy twice. What looks like a slip is a warning, never silent.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from signalwarden import _core
from signalwarden.errors import FindingLike, Problem, is_error, sorted_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "APPROVALS",
    "CORE_FILES",
    "DESCRIPTORS",
    "FEEDS",
    "MAX_DEPTH",
    "MAX_FILE_BYTES",
    "POLICIES",
    "SETTINGS_FILE",
    "TESTS",
    "Directory",
    "Glance",
]

SETTINGS_FILE = "signalwarden.yaml"
CORE_FILES = ("routes.yaml", "signals.yaml", "entities.cedarschema", "entities.json", "data.json")
POLICIES = "policies"
APPROVALS = "approvals"
"""Signatures of approvers over contracts: `approvals/SIGNAL.json`. The core does not read them."""
DESCRIPTORS = ".pb"
"""The ending of descriptor sets of protobuf: by them policies over whole requests see bodies of gRPC."""
FEEDS = "feeds"
"""Documents of feeds: data that comes and goes, no configuration. Never read here, part of no revision."""

TESTS = "tests"
"""Cases of `signalwarden test`. Never read here, part of no revision."""

MAX_FILE_BYTES = 32 * 1024 * 1024
"""As the core's own limit; a register of 10,000 signals is about 5 MB, 100,000 entities are about 15."""
MAX_FILES = 110_000
"""A hundred thousand policies, the most that the budgets speak of, each in a file of its own, and what is beside."""
MAX_TOTAL_BYTES = 256 * 1024 * 1024
"""What a reload may hold in memory beside the configuration in force."""
MAX_DEPTH = 16
"""Folders below `policies/`; deeper is a loop or a mistake."""

Glance = tuple[tuple[str, tuple[int, ...]], ...]
"""Each file's name with its device, inode, size, and times of writing and of change."""


@dataclass(frozen=True)
class Directory:
    """The files as bytes, by their path relative to the directory, and what went wrong in reading them."""

    root: Path
    files: dict[str, bytes]
    findings: tuple[FindingLike, ...]
    readable: bool
    """False if the directory itself could not be read: then nothing else is worth checking."""

    @staticmethod
    def read(path: Path) -> Directory:
        """Reads everything that belongs to a configuration. Never raises for what it finds there."""
        reader = _Reader(path)
        readable = reader.run()
        return Directory(reader.root, reader.files, tuple(sorted_findings(reader.findings)), readable)

    @staticmethod
    def glance(path: Path) -> Glance:
        """What there is to read, without reading it. Two equal ones: very likely nothing has happened between.
        The time of change can't be set by hand, so a file written over with its old size and time is seen."""
        reader = _Reader(path)
        return tuple((name, _stamp(path / name)) for name in islice(reader.names(), MAX_FILES))

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over every file that was read, and over what kept others from being read.
        Warnings are left out: an editor's temporary file must not make a directory another one."""
        hash_ = hashlib.sha256()

        def part(content: bytes) -> None:
            hash_.update(len(content).to_bytes(8, "big"))
            hash_.update(content)

        for name, content in sorted(self.files.items()):
            part(name.encode("utf-8", "surrogateescape"))
            part(content)
        for finding in filter(is_error, self.findings):
            part(f"{finding.file}\0{finding.code}\0{finding.message}".encode("utf-8", "surrogateescape"))
        return hash_.hexdigest()

    def approvals(self) -> dict[str, bytes]:
        """The approvals files, by the name of the signal."""
        prefix = f"{APPROVALS}/"
        return {
            name.removeprefix(prefix).removesuffix(".json"): content
            for name, content in self.files.items()
            if name.startswith(prefix)
        }

    def text(self, name: str) -> str | list[Problem]:
        """A file as text, or why that can't be had; [] if a finding was already made."""
        content = self.files.get(name)
        if content is None:
            known = any(finding.file == name for finding in self.findings)
            message = "the file is missing, `signalwarden init DIR` makes one"
            return (
                [] if known or not self.readable else [Problem("error", name, 0, 0, "missing_file", message)]
            )
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            return [Problem("error", name, line, 1, "not_utf8", "expected UTF-8 text")]

    def core_files(self) -> list[tuple[str, bytes]]:
        """What the core reads, in a fixed order."""
        return [
            (name, content)
            for name, content in sorted(self.files.items())
            if name != SETTINGS_FILE and not name.startswith(f"{APPROVALS}/")
        ]


class _Reader:
    def __init__(self, path: Path) -> None:
        self.root = path
        self.files: dict[str, bytes] = {}
        self.findings: list[FindingLike] = []
        self._real = os.path.realpath(path)
        self._total = 0
        self._full = False

    def run(self) -> bool:
        names = self._top()
        if names is None:
            return False
        for name in self._names(names):
            self._take(name)
        for name in names:
            self._stray(name)
        return True

    def names(self) -> Iterator[str]:
        """The files that `run` would read."""
        yield from self._names(self._top() or [])

    def _names(self, top: list[str]) -> Iterator[str]:
        yield from (name for name in (SETTINGS_FILE, *CORE_FILES) if name in top)
        yield from (name for name in top if name.endswith(DESCRIPTORS) and not name.startswith("."))
        if POLICIES in top:
            yield from self._walk(POLICIES, 0, frozenset())
        if APPROVALS in top:
            yield from self._approvals()

    def _top(self) -> list[str] | None:
        try:
            return sorted(entry.name for entry in self.root.iterdir())
        except OSError as error:
            why = f"the directory can't be read: {_why(error)}"
            self._error(str(self.root), "unreadable_directory", why)
            return None

    def _approvals(self) -> Iterator[str]:
        """Approvals files, sorted by name; what they say is checked where contracts are."""
        try:
            entries = sorted(entry.name for entry in (self.root / APPROVALS).iterdir())
        except OSError as error:
            self._error(APPROVALS, "unreadable", f"the folder can't be read: {_why(error)}")
            return
        for entry in entries:
            if entry.endswith(".json") and not entry.startswith("."):
                yield f"{APPROVALS}/{entry}"

    def _walk(self, folder: str, depth: int, above: frozenset[str]) -> Iterator[str]:
        """Policy files below a folder, sorted by name."""
        real = os.path.realpath(self.root / folder)
        if depth > MAX_DEPTH or real in above:
            self._error(
                folder, "too_deep", f"more than {MAX_DEPTH} folders below one another, or a loop of links"
            )
            return
        try:
            entries = sorted(entry.name for entry in (self.root / folder).iterdir())
        except OSError as error:
            self._error(folder, "unreadable", f"the folder can't be read: {_why(error)}")
            return
        for entry in entries:
            name = f"{folder}/{entry}"
            if entry.startswith("."):
                continue
            if (self.root / name).is_dir():
                yield from self._walk(name, depth + 1, above | {real})
            elif entry.endswith((".cedar", ".rego")) or _is_links(entry):
                yield name
            elif not entry.endswith(".md"):
                why = "not read: a policy file ends in `.cedar` or `.rego`, links are `links.yaml` or `NAME.links.yaml`"
                self._warning(name, "ignored_file", why)

    def _stray(self, name: str) -> None:
        """A file that is not read, and that looks as if it was meant to be."""
        if name in (SETTINGS_FILE, POLICIES, APPROVALS, FEEDS, TESTS, *CORE_FILES) or name.startswith("."):
            return
        if name.endswith(DESCRIPTORS):
            return
        if name.endswith((".cedar", ".rego")) or _is_links(name):
            self._warning(name, "ignored_file", f"not read: policies are files below `{POLICIES}/`")
        elif near := _core.nearest_name(name, [SETTINGS_FILE, *CORE_FILES, POLICIES, APPROVALS, TESTS]):
            self._warning(name, "ignored_file", f"not read, did you mean `{near}`?")

    def _take(self, name: str) -> None:
        if self._full:
            return
        path = self.root / name
        try:
            real = os.path.realpath(path, strict=True)
            if os.path.commonpath([real, self._real]) != self._real:
                self._error(name, "outside", "a link leads out of the directory")
                return
            content = _read_regular(real)
        except OSError as error:
            self._error(name, "unreadable", f"the file can't be read: {_why(error)}")
            return
        except _RefusedError as error:
            self._error(name, "unreadable", str(error))
            return
        self._total += len(content)
        if len(self.files) >= MAX_FILES or self._total > MAX_TOTAL_BYTES:
            self._full = True
            self._error(name, "too_large", f"more than {MAX_FILES} files or {MAX_TOTAL_BYTES} bytes in all")
            return
        self.files[name] = content

    def _error(self, file: str, code: str, message: str) -> None:
        self.findings.append(Problem("error", file, 0, 0, code, message))

    def _warning(self, file: str, code: str, message: str) -> None:
        self.findings.append(Problem("warning", file, 0, 0, code, message))


def _is_links(entry: str) -> bool:
    """Whether a file is one of links of templates; the core asks the same of its name."""
    return entry == "links.yaml" or entry.endswith(".links.yaml")


def _stamp(path: Path) -> tuple[int, ...]:
    """Of the file itself, behind any links; empty if it is not to be had."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _RefusedError(Exception):
    """A file that is there and is not read."""


def _read_regular(path: str) -> bytes:
    """Reads a bounded regular file; O_NONBLOCK so that a pipe of that name can't stop a reload for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _RefusedError("expected a regular file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _RefusedError(f"the file has more than {MAX_FILE_BYTES} bytes")
    return content


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
