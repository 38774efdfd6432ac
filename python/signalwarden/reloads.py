"""The one way of a directory into force: read while it stands still, checked whole, swapped at once, recorded.

`POST /v1/reload`, SIGHUP and the watch all come through here. A bad directory changes nothing: it is recorded, logged
and shown by `/readyz`, and the last good one goes on.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from signalwarden import config
from signalwarden.config import Directory, Loaded, Settings
from signalwarden.decision_log import Recorder, rfc3339
from signalwarden.declared import View, differences, view
from signalwarden.errors import ConfigurationError, Problem, StateError, sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from signalwarden.in_force import InForce

__all__ = ["Reloads", "load_still"]

_log = logging.getLogger("signalwarden")

TRIES: Final = 5
"""How often a directory is read that changes meanwhile, before whoever asked for the reload is told."""
PAUSE_S: Final = 0.2
"""Between two tries: a rename takes microseconds, the swap of a ConfigMap's link too."""

MAX_WARNINGS: Final = 20
"""Of one reload, on standard error."""

# What a reload can't change: these are bound when the server starts.
FIXED: Final = (
    *("listen", "tls.cert", "tls.key", "tls.client_ca", "tls.spire", "tls.doors", "workload_api"),
    *("state", "keys", "decision_log", "telemetry", "signals", "policies", "insecure"),
    # A first or last source of tokens: the front door has threads for first sight, or has none.
    "identity.takes_tokens",
)
SAID: Final = {"identity.takes_tokens": "identity.sources"}
"""How it is called in the settings."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A directory as it was read, and what came of it: one of the two last is not None."""

    digest: str
    found: tuple[Loaded, View] | None
    """The view is large, and not asked for twice: whoever is done with it lets go of it."""
    error: ConfigurationError | None

    def good(self) -> tuple[Loaded, View]:
        if self.found is None:
            raise self.error or ConfigurationError([])
        return self.found


def _read(path: Path, now_us: int) -> _Read | None:
    """Reads and checks; None if the directory was another one afterwards than before. What was read has then to be
    what is still there, byte for byte, in files of the same names, inodes, sizes and times: half a file is never
    loaded, nor half of one directory with half of the next."""
    before = Directory.glance(path)
    directory = Directory.read(path)
    found, error = None, None
    try:
        loaded, described = config.judge_described(directory, now_us)
        found = loaded, view(loaded, described)
    except ConfigurationError as refused:
        error = refused
    still = Directory.read(path).digest == directory.digest and Directory.glance(path) == before
    return _Read(directory.digest, found, error) if still else None


def _read_still(path: Path, clock: Callable[[], int]) -> _Read:
    for _ in range(TRIES):
        if (read := _read(path, clock())) is not None:
            return read
        time.sleep(PAUSE_S)
    message = f"the directory changed while it was read, {TRIES} times in a row: try again once it is still"
    error = ConfigurationError([Problem("error", str(path), 0, 0, "directory_changing", message)])
    return _Read("", None, error)


def load_still(path: Path, clock: Callable[[], int]) -> tuple[Loaded, View]:
    """Loads a directory that stands still meanwhile, and says what it declares. Raises ConfigurationError."""
    return _read_still(path, clock).good()


class Reloads:
    """Holds the directory in force, and puts others into force. Every method may be called from any thread."""

    def __init__(
        self,
        directory: Path,
        loaded: Loaded,
        *,
        in_force: InForce,
        clock: Callable[[], int],
        swap: Callable[[Loaded, View], None],
        recorder: Recorder,
        count: Callable[[str], None],
        on_swapped: Sequence[Callable[[Loaded, View], None]] = (),
    ) -> None:
        """`swap` puts a directory into the core; `on_swapped` are told after each reload, in order, in the
        thread of the reload. They must not raise: the directory is in force."""
        self._directory = directory
        self._in_force = in_force
        self._clock = clock
        self._swap = swap
        self._recorder = recorder
        self._count = count
        self._on_swapped = tuple(on_swapped)
        self._one = threading.Lock()
        """One reload at a time; decisions and signals go on meanwhile."""
        self._loaded = loaded
        self._attempted = loaded.digest
        self._refused: dict[str, Any] | None = None

    @property
    def loaded(self) -> Loaded:
        """The directory in force."""
        return self._loaded

    @property
    def refused(self) -> dict[str, Any] | None:
        """`{"time", "actor", "findings"}` of the last reload, if it was refused."""
        return self._refused

    def record_start(self, now: View) -> None:
        """Records what the server starts with, and what that changes against what was in force last. `now`: of what
        is in force."""
        revision, declared = self._in_force.declared() or (None, None)
        self._record(revision, declared, self._loaded, now, "server")

    def reload(self, actor: str) -> str:
        """Puts the directory in force as it is now; its revision. The same content again is a reload, too: somebody
        asked for it. Raises ConfigurationError if it is bad, StateError if its approvers can't be
        remembered, and then changes nothing."""
        with self._one:
            return self._bring(_read_still(self._directory, self._clock), actor)

    def follow(self, actor: str) -> bool:
        """Puts the directory in force if its content is new. False: it changed meanwhile, and is to be asked for
        again. A bad directory is refused, recorded and done with until its content changes."""
        with self._one:
            digest = Directory.read(self._directory).digest
            if digest == self._attempted:
                return True
            if digest == self._loaded.digest:
                self._attempted, self._refused = digest, None
                _log.info(
                    "the directory is again what is in force, revision %.12s",
                    self._loaded.configuration.revision,
                )
                return True
            read = _read(self._directory, self._clock())
            if read is None:
                return False
            with contextlib.suppress(ConfigurationError):  # recorded and logged
                self._bring(read, actor)
            return True

    def _bring(self, read: _Read, actor: str) -> str:
        """From what was read to what is in force."""
        before = self._loaded
        try:
            loaded, now = read.good()
            _refuse_fixed(before.settings, loaded.settings)
            self._in_force.admit(loaded, now)
        except ConfigurationError as error:
            self._attempted = read.digest
            self._refuse(actor, error)
            raise
        except StateError as error:
            self._count("state_failures")
            _log.error("reload by %s failed, what was in force goes on: %s", actor, error)
            raise
        self._swap(loaded, now)
        self._loaded, self._attempted, self._refused = loaded, read.digest, None
        self._count("reloads_done")
        self._record(before.configuration.revision, view(before), loaded, now, actor)
        _log.info("revision %.12s in force, by %s", loaded.configuration.revision, actor)
        _say_new_warnings(before, loaded)
        for told in self._on_swapped:
            try:
                told(loaded, now)
            except Exception:  # noqa: BLE001 - the directory is in force, whatever becomes of this
                _log.exception("a part of the server could not follow a reload")
        return loaded.configuration.revision

    def _refuse(self, actor: str, error: ConfigurationError) -> None:
        findings = [sentence(finding) for finding in error.findings]
        self._refused = {"time": rfc3339(self._clock()), "actor": actor, "findings": findings}
        self._count("reloads_refused")
        kept = self._loaded.configuration.revision
        self._recorder.change("configuration_refused", actor=actor, revision=kept, findings=findings)
        _log.error("reload by %s refused, revision %.12s goes on:\n%s", actor, kept, error)

    def _record(
        self, previous: str | None, before: View | None, after: Loaded, now: View, actor: str
    ) -> None:
        words, left_out = _in_words(before, now) if before and before != now else ([], 0)
        self._recorder.change(
            "configuration_loaded",
            actor=actor,
            revision=after.configuration.revision,
            digest=after.digest,
            previous=previous,
            trust_domain=after.settings.trust_domain,
            warnings=len(after.warnings),
            difference=differences(before, now) if before else None,
            words=words,
            words_left_out=left_out,
        )
        self._in_force.keep_declared(after, now)


def _in_words(before: View, now: View) -> tuple[list[dict[str, str]], int]:
    """Sentences for the record, and how many more there are."""
    # The rules of what each key widens or narrows: in memory only once something has changed.
    from signalwarden.difference import MAX_WORDS, in_words

    words = in_words(before, now)
    return [word.as_dict() for word in words[:MAX_WORDS]], max(0, len(words) - MAX_WORDS)


def _say_new_warnings(before: Loaded, after: Loaded) -> None:
    """A warning that came with a change is said with it; `check` and `/readyz` know of all."""
    known = {(finding.file, finding.message) for finding in before.warnings}
    fresh = [finding for finding in after.warnings if (finding.file, finding.message) not in known]
    for finding in fresh[:MAX_WARNINGS]:
        _log.warning("%s", sentence(finding))
    if len(fresh) > MAX_WARNINGS:
        _log.warning("and %d more warnings: `signalwarden check` says them", len(fresh) - MAX_WARNINGS)


def _refuse_fixed(before: Settings, after: Settings) -> None:
    """A changed setting that a reload can't bring into force is a mistake, not something to ignore."""
    findings = [
        Problem(
            "error",
            "signalwarden.yaml",
            0,
            0,
            "needs_restart",
            f"`{SAID.get(name, name)}` changes only with a restart",
        )
        for name in FIXED
        if attrgetter(name)(before) != attrgetter(name)(after)
    ]
    if findings:
        raise ConfigurationError(findings)
