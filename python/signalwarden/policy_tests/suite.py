"""All cases of a directory: its files of cases found, read, and each case made into what is decided."""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from signalwarden.directory import TESTS, Directory
from signalwarden.errors import Problem, sorted_findings
from signalwarden.files import read_regular, why
from signalwarden.policy_tests.model import Case, Draft, Place
from signalwarden.policy_tests.reading import Vocabulary, Written, read_cases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from signalwarden.directory import Glance
    from signalwarden.errors import FindingLike

__all__ = ["FOLDER", "Suite", "files_of", "glance", "read_suite"]

FOLDER: Final = TESTS
ENDINGS: Final = (".yaml", ".yml")
MAX_FILES: Final = 2_000
"""One for each policy of a large directory."""
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Ten thousand cases of ten lines."""
MAX_CASES: Final = 100_000
"""Minutes of work: a product of variations that is larger is a mistake."""
MAX_LOST: Final = 16
"""Signals of one case that are taken away one by one, and all of them."""


@dataclass(frozen=True, slots=True)
class Suite:
    """What there is to decide, in the order of files and lines, and what is wrong with the files."""

    cases: tuple[Case, ...]
    findings: tuple[FindingLike, ...]
    files: int


def files_of(directory: Path) -> Iterator[Path]:
    """The files of cases, sorted. Names that start with a dot are skipped, links to folders are not followed."""
    for folder, folders, names in os.walk(directory / FOLDER):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(ENDINGS) and not name.startswith("."):
                yield directory / os.path.relpath(folder, directory) / name


def glance(directory: Path) -> Glance:
    """Of the directory and of its cases, with what they name beside them: what `--watch` looks at."""
    found = [*Directory.glance(directory)]
    for folder, folders, names in os.walk(directory):
        if folder == str(directory):
            # What is written while tests run, or by a server, is no reason to run them again.
            folders[:] = [name for name in folders if name == FOLDER or name == "samples"]
            continue
        for name in itertools.islice(names, MAX_FILES):
            path = os.path.join(folder, name)  # noqa: PTH118 - as os.walk gives it, thousands of times
            try:
                stat = os.stat(path)  # noqa: PTH116 - see above
            except OSError:
                continue
            found.append((path, (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)))
    return tuple(sorted(found))


def read_suite(directory: Path, words: Vocabulary) -> Suite:
    """Reads all files of cases. Never raises for what they say."""
    findings: list[FindingLike] = []
    cases: list[Case] = []
    paths = [*itertools.islice(files_of(directory), MAX_FILES + 1)]
    if len(paths) > MAX_FILES:
        findings.append(Problem("error", FOLDER, 0, 0, "too_large", f"more than {MAX_FILES} files of cases"))
        paths = []
    for path in paths:
        name = path.relative_to(directory).as_posix()
        text = _text(path, name)
        if isinstance(text, Problem):
            findings.append(text)
            continue
        read = read_cases(name, text, words)
        findings += read.findings
        if not read.findings:
            findings += _expand(read.defaults, read.cases, cases)
        if len(cases) > MAX_CASES:
            findings.append(Problem("error", name, 0, 0, "too_large", f"more than {MAX_CASES} cases in all"))
            break
    return Suite(tuple(cases), tuple(sorted_findings(findings)), len(paths))


def _text(path: Path, name: str) -> str | Problem:
    try:
        content = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            return Problem("error", name, 0, 0, "too_large", why(error))
        return Problem("error", name, 0, 0, "unreadable", f"the file can't be read: {why(error)}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Problem("error", name, line, 1, "not_utf8", "expected UTF-8 text")


# ---- from what is written to what is decided ------------------------------------------------------------------


def _expand(defaults: Draft, written: tuple[Written, ...], cases: list[Case]) -> Iterator[Problem]:
    """Adds the cases; gives what is wrong with them as a whole."""
    seen: dict[str, Place] = {}
    for one in written:
        base = defaults.under(one.draft)
        drafts = [(base.name or "", base)] if base.expect is not None or one.each is None else []
        drafts += [(f"{base.name} > {over.name}", base.under(over)) for over in one.each or ()]
        for name, draft in drafts:
            if problem := _lacks(draft, seen.get(name)):
                yield problem
                continue
            seen[name] = draft.place
            made = _case(name, draft)
            cases.append(made)
            yield from _lost(made, draft, cases)


def _problem(place: Place, code: str, message: str) -> Problem:
    return Problem("error", place.file, place.line, place.column, code, message)


def _lacks(draft: Draft, twin: Place | None) -> Problem | None:
    """What a case as a whole must have, and must not."""
    if twin is not None:
        return _problem(draft.place, "duplicate", f"the case of line {twin.line} has the same name")
    if draft.expect is None:
        return _problem(draft.place, "missing_key", "`expect`: missing, a case says what it expects")
    if draft.begin is not None and draft.answer is not None:
        return _problem(draft.place, "one_of", "expected one of `begin` and `answer`, found both")
    if draft.begin is None and draft.request is None:
        return _problem(draft.place, "missing_key", "`request`: missing, a case says what is asked")
    if draft.begin is not None and draft.without:
        return _problem(draft.place, "bad_value", "`without` belongs to a case about a request")
    return None


def _case(name: str, draft: Draft) -> Case:
    return Case(
        name,
        draft.place,
        draft.request if draft.begin is None else None,
        draft.signals or (),
        draft.at_us,
        draft.task,
        draft.before or (),
        draft.approved_by or (),
        draft.begin,
        draft.answer,
        draft.expect,
    )


def _lost(case: Case, draft: Draft, cases: list[Case]) -> Iterator[Problem]:
    """The cases that `without` asks for: each signal taken away, and all of them together."""
    lost = draft.without or {}
    given = {signal.name for signal in case.signals if signal.state != "missing"}
    for name in lost:
        if name not in given:
            yield _problem(
                draft.without_places.get(name, draft.place),
                "bad_value",
                f"`without`: the case gives no `{name}`, so there is nothing to take away",
            )
            return
    if len(lost) > MAX_LOST:
        yield _problem(draft.place, "too_many", f"`without`: at most {MAX_LOST} signals, found {len(lost)}")
        return
    for name, reason in lost.items():
        cases.append(case.lacking((name,), draft.without_places.get(name, draft.place), reason))
    if len(lost) > 1:
        cases.append(case.lacking(tuple(lost), draft.place, None))
