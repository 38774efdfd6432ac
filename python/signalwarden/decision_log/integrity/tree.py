"""The tree of a log that is being written: it takes each batch after the file has it; a checkpoint signs it at times.

Lines are hashed where they are drained; a thread of its own brings tiles and checkpoints to the disk. So a slow disk
of the tree delays no record, and the tree on disk is never ahead of the log: what is sealed was synced before. It may
be behind, after a crash by as much as one checkpoint; then it catches up from the files when the server starts.

A tree that the log contradicts is never signed over. A new one begins where the log is now, under an origin of its own,
and the old one stays for `log verify`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from signalwarden.decision_log.integrity import places
from signalwarden.decision_log.integrity.edge import Edge
from signalwarden.decision_log.integrity.merkle import HASH_BYTES
from signalwarden.decision_log.integrity.notes import Checkpoint
from signalwarden.decision_log.integrity.places import Begin, Head, Span
from signalwarden.decision_log.integrity.resuming import Contradiction, first_line, resumed
from signalwarden.decision_log.integrity.tiles import WIDTH, Tile, tile_path, write_files, write_tiles
from signalwarden.decision_log.logfiles import COMPRESSED, rotated_files
from signalwarden.decision_log.records import rfc3339
from signalwarden.errors import LogError, SignalwardenError
from signalwarden.files import make_private_directory, open_private, why

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from signalwarden.decision_log.integrity.log_keys import LogKeys
    from signalwarden.decision_log.records import Recorder

__all__ = ["Tree"]

_log = logging.getLogger("signalwarden.decision_log")

MAX_PENDING: Final = 1 << 20
"""Lines whose hashes wait for a disk that takes no tiles: 100 MB of memory, at most. What comes beyond is read from
the files once the disk is back."""
TILES_AHEAD: Final = 64
"""Full tiles that are written before their checkpoint, so that it comes soon, also at a stop. Those of one go share the
file system's journal: fewer would cost more each."""
RETRY_S: Final = 1.0
MAX_HISTORY: Final = 4_096
"""Checkpoints that are kept: at 10 s each, those of the last eleven hours. Then every second one of the older half
goes, so that old times are covered more thinly, but covered."""
STOP_S: Final = 5.0
"""For the last checkpoint, after the writer has ended; within Kubernetes' default of 30 s with the other graces."""


class Identity(NamedTuple):
    """What a file is, whatever it is called."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class _Seal:
    """What a checkpoint brings to the disk; or full tiles alone, ahead of it."""

    tiles: Mapping[Tile, bytes]
    """Full ones."""
    head: Head | None = None
    root: bytes = b""
    partial: Mapping[Tile, bytes] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


class Tree:
    """See the module. `took` and `synced` are for the writer's thread, and never raise."""

    def __init__(
        self,
        path: Path,
        keys: LogKeys,
        recorder: Recorder,
        *,
        name: str,
        every_s: float,
        place: Callable[[], os.stat_result],
        clock: Callable[[], int],
    ) -> None:
        """`path`: of the log's file; `place`: of the open one, now. Reads what is there and catches up. Raises LogError
        if the tree can't be kept at all."""
        self._path = path
        self._keys = keys
        self._recorder = recorder
        self._name = name
        self._every_s = every_s
        self._place = place
        self._clock = clock
        self._directory = places.tree_directory(path)
        self._epoch = 1
        self._edge = Edge()
        self._head = Head(0, "", 0, 0)
        self._identity = Identity(0, 0)
        self._spans: list[Span] = []
        self._adrift = False
        """Whether lines were passed over, to be read from the files."""
        self._mutex = threading.Lock()
        self._work = threading.Condition(self._mutex)
        self._waiting: _Seal | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="log-tree", daemon=True)
        self._sealed = 0
        self._sealed_at = time.monotonic()
        self._asked_at = float("-inf")
        self._old_partial: list[set[Tile]] = []
        self._last_error: str | None = None
        self._failures = 0
        self.broken: str | None = None
        """Why the tree before this one ended, if that was found since the start."""
        try:
            make_private_directory(self._directory)
            self._begin()
        except OSError as error:
            raise LogError(f"the log's tree `{self._directory}` can't be written: {why(error)}") from error
        if keys.made:
            recorder.change("log_key_made", actor="server", key=str(keys.verifiers[0]))
        self._thread.start()

    # ---------------------------------------------------------------- the beginning

    def _begin(self) -> None:
        """Goes on with the last tree, or begins one. The writer does not write yet, or it is the writer who calls."""
        known = places.epochs(self._directory)
        try:
            found = resumed(self._path, self._directory, known, name=self._name, last=self._keys.last())
        except (Contradiction, LogError) as contradiction:
            self._next_epoch(max(known, default=1), str(contradiction))
            return
        self._epoch = found.epoch
        self._edge, self._head, self._sealed = found.edge, found.head, found.sealed
        self._spans += found.spans
        self._identity = self._identity_now()
        self._old_partial = []
        if not found.caught_up:
            return
        told = {"origin": self._origin, "records": found.caught_up, "size": found.edge.size}
        if known:
            self._recorder.change("log_tree_caught_up", actor="server", **told)
        else:
            self._recorder.change("log_tree_begun", actor="server", **told)
        _log.warning("the log's tree takes in %d records that it did not have", found.caught_up)

    def _next_epoch(self, last: int, why_broken: str) -> None:
        """Leaves a tree that the log contradicts, and begins the next one at the end of the file."""
        self.broken = why_broken
        self._epoch = last + 1
        status = self._place()
        begin = Begin(first_line(self._path), _lines_of(self._path), status.st_size)
        self._edge = Edge()
        self._head = Head(0, begin.digest, -begin.lines, begin.offset)
        self._identity = Identity(status.st_dev, status.st_ino)
        self._spans, self._sealed, self._old_partial = [], 0, []
        write_files(self._folder, {places.BEGIN: places.encode(begin)})
        _log.error("the log's tree is broken: %s; a new one begins: %s", why_broken, self._origin)
        self._recorder.change("log_tree_broken", actor="server", origin=self._origin, why=why_broken)

    @property
    def _origin(self) -> str:
        return self._name if self._epoch == 1 else f"{self._name}/{self._epoch}"

    @property
    def _folder(self) -> Path:
        return self._directory / str(self._epoch)

    def _identity_now(self) -> Identity:
        status = self._place()
        return Identity(status.st_dev, status.st_ino)

    # ---------------------------------------------------------------- the writer's thread

    def took(self, size: int, leaves: bytes) -> None:
        """So many bytes of lines are in the file; the hash of each as a leaf."""
        if self._adrift or not size:
            return
        try:
            self._take(size, leaves)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with the tree, records are written)
            self._drift(_reason(error))

    def _take(self, size: int, leaves: bytes) -> None:
        status = self._place()
        self._follow(Identity(status.st_dev, status.st_ino))
        gone = self._head.offset + size - status.st_size
        if gone:
            self._break(f"somebody else wrote to `{self._path}`: {gone} bytes of it are gone")
            return
        self._edge.extend(leaves)
        head = self._head
        first = head.digest or leaves[:HASH_BYTES].hex()
        self._head = Head(self._edge.size, first, head.first, status.st_size)
        if len(self._edge.full) * WIDTH > MAX_PENDING:
            self._drift("more lines wait for the tree's disk than memory is for")

    def _follow(self, now: Identity) -> None:
        """Notices that the log goes on in a new file."""
        if now == self._identity:
            return
        name = ""
        for file in reversed(rotated_files(self._path)):
            status = file.stat()
            is_it = Identity(status.st_dev, status.st_ino) == self._identity
            # It may have been compressed already.
            if is_it or (file.name.endswith(COMPRESSED) and first_line(file) == self._head.digest):
                name = file.name.removesuffix(COMPRESSED)
                break
        self._spans.append(Span(name, self._head.digest, self._head.first, self._edge.size))
        self._identity = now
        self._head = Head(self._edge.size, "", self._edge.size, 0)

    def _drift(self, reason: str) -> None:
        _log.error("the log's tree falls behind: %s; it catches up from the files", reason)
        self._adrift = True
        self._edge = Edge()

    def _break(self, reason: str) -> None:
        with self._mutex:  # nobody seals the old tree any more
            self._waiting = None
        self._next_epoch(self._epoch, reason)

    def synced(self) -> None:
        """All that was taken is durable: a checkpoint may sign it, if it is time for one."""
        now = time.monotonic()
        is_time = now - self._asked_at >= self._every_s
        if not is_time and len(self._edge.full) < TILES_AHEAD:
            return
        with self._mutex:
            if self._waiting is not None:
                return
            if not is_time:
                self._hand_over(_Seal(self._edge.full))
                return
            if self._adrift:
                self._regain()
            elif self._edge.size > self._sealed:
                self._ask()
            self._asked_at = now

    def _regain(self) -> None:
        """Reads what was passed over, once the disk of the tree takes files again."""
        try:
            write_files(self._directory, {".probe": b""})
            self._adrift = False
            self._begin()
            self._ask()
        except Exception as error:  # noqa: BLE001  (as in `took`)
            self._failed(error)
            self._adrift = True

    def _ask(self) -> None:
        edge = self._edge
        self._hand_over(_Seal(edge.full, self._head, edge.root(), edge.partial(), tuple(self._spans)))
        self._spans = []

    def _hand_over(self, seal: _Seal) -> None:
        self._edge.full = {}
        self._waiting = seal
        self._work.notify_all()

    # ---------------------------------------------------------------- the tree's own thread

    def _run(self) -> None:
        while True:
            with self._mutex:
                while self._waiting is None and not self._stopping:
                    self._work.wait()
                seal, epoch = self._waiting, self._epoch
            if seal is None:
                return
            try:
                self._seal(seal, epoch)
            except Exception as error:  # noqa: BLE001  (it is tried again, and readiness says why)
                self._failed(error)
                with self._mutex:
                    if self._stopping:
                        return
                    self._work.wait(RETRY_S)
            else:
                self._last_error = None
                with self._mutex:
                    if self._waiting is seal:
                        self._waiting = None
                    self._work.notify_all()

    def _seal(self, seal: _Seal, epoch: int) -> None:
        """Tiles, then where they come from, then the checkpoint: whatever a crash leaves, is a tree with its lines."""
        folder = self._directory / str(epoch)
        write_tiles(folder, {**seal.tiles, **seal.partial})
        if seal.head is None:
            return
        _append(folder / places.FILES, b"".join(places.encode(span) for span in seal.spans))
        write_files(folder, {places.HEAD: places.encode(seal.head)})
        origin = self._name if epoch == 1 else f"{self._name}/{epoch}"
        note = self._keys.sign(Checkpoint(origin, seal.head.size, seal.root))
        write_files(folder, {places.CHECKPOINT: str(note).encode()})
        self._keys.keep_last(note)
        if epoch == self._epoch:
            self._sealed, self._sealed_at = seal.head.size, time.monotonic()
        kept = orjson.dumps({"time": rfc3339(self._clock()), "note": str(note)}) + b"\n"
        _append(folder / places.HISTORY, kept)
        _thin(folder)
        # Readers of the checkpoint before may still want its partial tiles.
        self._old_partial.append(set(seal.partial))
        while len(self._old_partial) > 2:
            for tile in self._old_partial.pop(0) - set(seal.partial):
                (folder / tile_path(tile)).unlink(missing_ok=True)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        reason = _reason(error)
        if self._last_error is None:
            _log.error("the log's tree can't be written: %s; it is tried again", reason)
        self._last_error = reason

    def stop(self) -> None:
        """Signs all that was taken, and ends. The writer has ended before. What can't be signed is said."""
        with self._mutex:
            deadline = time.monotonic() + STOP_S
            while self._waiting is not None and time.monotonic() < deadline and self._thread.is_alive():
                self._work.wait(0.1)
            if self._waiting is None and not self._adrift and self._edge.size > self._sealed:
                self._ask()
            self._stopping = True
            self._work.notify_all()
        self._thread.join(STOP_S)
        if self._sealed < self._edge.size or self._adrift:
            reason = self._last_error or "the disk of its tree takes too long"
            _log.error("the last records of the log are signed at the next start: %s", reason)

    # ---------------------------------------------------------------- what others see

    def detail(self) -> dict[str, object]:
        """For readiness."""
        return {
            "origin": self._origin,
            "size": self._head.size,
            "sealed": self._sealed,
            "checkpoint_age_s": round(self._age(), 1),
            "broken": self.broken,
            "last_error": self._last_error,
        }

    def numbers(self) -> dict[str, float]:
        """For metrics."""
        return {
            "log_tree_size": self._head.size,
            "log_tree_sealed": self._sealed,
            "log_tree_broken": int(self.broken is not None),
            "log_tree_failures": self._failures,
            "log_checkpoint_age_seconds": self._age(),
        }

    def _age(self) -> float:
        """How old the last checkpoint is, while there is something that it does not sign."""
        return time.monotonic() - self._sealed_at if self._head.size > self._sealed else 0.0


def _reason(error: Exception) -> str:
    """In words."""
    if isinstance(error, OSError):
        return why(error)
    return str(error) if isinstance(error, SignalwardenError) else repr(error)


def _lines_of(path: Path) -> int:
    """How many lines a file has."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _append(path: Path, content: bytes) -> None:
    """Durably. Raises OSError."""
    if content:
        fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)


def _thin(folder: Path) -> None:
    """Keeps the list of earlier checkpoints in bounds."""
    path = folder / places.HISTORY
    if path.stat().st_size < MAX_HISTORY * 300:
        return
    lines = path.read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    write_files(folder, {places.HISTORY: b"".join([*lines[:half:2], *lines[half:]])})
