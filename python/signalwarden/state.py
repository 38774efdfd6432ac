"""The store of Changes: live state written down, so that a restart is its stream read back. Beside it a few
documents of the server's own, by name, that must outlive it: what is in force and who must approve its change.

One Protocol, SQLite by default. A directory has one owner at a time, by a lock that the kernel releases when the
process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Final, Protocol, Self

from signalwarden import _core
from signalwarden.errors import StateError
from signalwarden.files import make_private_directory, open_private, sync_directory, why

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["SqliteStore", "Store"]

APPLICATION_ID: Final = 0x5357_5331
"""`SWS1` in the file's header: this is ours, and not somebody else's database."""
SCHEMA_VERSION: Final = 1
"""Kept in `user_version`; a newer one is refused, an older one would be migrated here."""
PAGE: Final = 1_000
"""Rows in memory at once while reading back."""
BUSY_MS: Final = 5_000
"""How long a reader with the sqlite3 tool may hold us up before an append fails."""
LOCK_NAME: Final = "lock"

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE changes (
    seq      INTEGER PRIMARY KEY,
    key      TEXT NOT NULL,
    replaces INTEGER NOT NULL,
    payload  BLOB NOT NULL
) STRICT;
CREATE INDEX changes_key ON changes (key);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
# Made at every opening: a state of an earlier release gets it then, and that release does not mind it.
_KEPT: Final = "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT"


class Store(Protocol):
    """Keeps Changes in order. Every method may be called from any thread and raises StateError."""

    def append(self, changes: Sequence[_core.StoredChange]) -> None:
        """Writes all or none; on the disk when it returns. A change that `replaces` removes the older ones
        of its key: this is the whole of compaction."""

    def read_all(self) -> Iterator[_core.StoredChange]:
        """Everything kept, oldest first."""

    def keep(self, key: str, value: bytes) -> None:
        """Writes a document in place of an earlier one of this name; on the disk when it returns."""

    def kept(self, key: str) -> bytes | None:
        """The document of this name."""

    def close(self) -> None:
        """Gives the directory up."""


class SqliteStore:
    """A Store in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._closed = False
        try:
            make_private_directory(path.parent)
        except OSError as error:
            raise StateError(f"the state directory `{path.parent}` can't be made: {why(error)}") from error
        self._lock = _DirectoryLock(path.parent)
        try:
            self._database = _open(path)
        except BaseException:
            self._lock.release()
            raise

    def append(self, changes: Sequence[_core.StoredChange]) -> None:
        """See Store."""
        rows = [(change.key, change.replaces, change.payload) for change in changes]
        if not rows:
            return
        with self._mutex, self._saying("written"):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for key, replaces, payload in rows:
                    if replaces:
                        self._database.execute("DELETE FROM changes WHERE key = ?", (key,))
                    self._database.execute(
                        "INSERT INTO changes (key, replaces, payload) VALUES (?, ?, ?)",
                        (key, replaces, payload),
                    )
                self._database.execute("COMMIT")
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        """SQLite has already rolled back after some errors, a full disk among them."""
        if self._database.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def read_all(self) -> Iterator[_core.StoredChange]:
        """See Store."""
        last = -1
        while rows := self._page(last):
            for seq, key, replaces, payload in rows:
                last = seq
                yield _core.StoredChange(key, bool(replaces), payload)

    def _page(self, after: int) -> list[tuple[int, str, int, bytes]]:
        with self._mutex, self._saying("read"):
            return self._database.execute(
                "SELECT seq, key, replaces, payload FROM changes WHERE seq > ? ORDER BY seq LIMIT ?",
                (after, PAGE),
            ).fetchall()

    def keep(self, key: str, value: bytes) -> None:
        """See Store."""
        with self._mutex, self._saying("written"):
            self._database.execute("INSERT OR REPLACE INTO kept (key, value) VALUES (?, ?)", (key, value))

    def kept(self, key: str) -> bytes | None:
        """See Store."""
        with self._mutex, self._saying("read"):
            row = self._database.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        """See Store. May be called twice."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.close()
            self._lock.release()

    @contextlib.contextmanager
    def _saying(self, done: str) -> Iterator[None]:
        if self._closed:
            raise StateError(f"the state `{self._path}` is closed")
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"the state `{self._path}` can't be {done}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        # SQLite gives its -wal and -shm files the mode of the database: make that first, private.
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
        sync_directory(path.parent)
    except OSError as error:
        raise StateError(f"the state `{path}` can't be opened: {why(error)}") from error
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StateError(f"the state `{path}` can't be opened: {error}") from error
    try:
        _prepare(database, path)
    except sqlite3.Error as error:
        database.close()
        raise StateError(f"the state `{path}` can't be opened: {error}") from error
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    def number(pragma: str) -> int:
        return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])

    database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    if number("schema_version") == 0:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_SCHEMA)
    if number("application_id") != APPLICATION_ID:
        raise StateError(f"the state `{path}` is a database of another program")
    if (version := number("user_version")) > SCHEMA_VERSION:
        raise StateError(f"the state `{path}` was written by a newer signalwarden (version {version})")
    mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StateError(f"the state `{path}` is on a file system without write-ahead logging")
    # FULL: with NORMAL a commit in WAL mode may be lost at power failure, and a publisher has had its answer.
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA journal_size_limit = 16777216")
    database.execute(_KEPT)


class _DirectoryLock:
    """`flock` on a file in the directory; its text is the holder's pid, for the message only."""

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        try:
            self._fd = open_private(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StateError(f"the state directory `{directory}` can't be locked: {why(error)}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StateError(f"the state directory `{directory}` is in use by process {holder}") from error
        except OSError as error:
            os.close(self._fd)
            raise StateError(f"the state directory `{directory}` can't be locked: {why(error)}") from error

    def release(self) -> None:
        """The file stays: to remove it would let two hold what they think is the same lock."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
