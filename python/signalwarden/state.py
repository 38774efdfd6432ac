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
from urllib.parse import quote

from signalwarden import _core
from signalwarden.errors import StateError
from signalwarden.files import make_private_directory, open_private, sync_directory, why

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Documents", "SqliteStore", "Store", "kept_payloads"]

APPLICATION_ID: Final = 0x5357_5331
"""`SWS1` in the file's header: this is ours, and not somebody else's database."""
SCHEMA_VERSION: Final = 2
"""Kept in `user_version`; a newer one is refused, an older one is migrated (`_MIGRATIONS`)."""
PAGE: Final = 1_000
"""Rows in memory at once while reading back."""
BUSY_MS: Final = 5_000
"""How long a reader with the sqlite3 tool may hold us up before an append fails."""
LOCK_NAME: Final = "lock"

# A value that replaces is written in place, under its key: half of what a deletion and an insertion cost, in time
# and in pages. Measured with 1,000 of 300,000 keys in a transaction: 10,100 changes a second before, 18,000 after.
_TABLES: Final = """
CREATE TABLE latest (
    key     TEXT PRIMARY KEY,
    seq     INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE added (
    seq     INTEGER PRIMARY KEY,
    key     TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX added_key ON added (key);
CREATE TABLE sequence (last INTEGER NOT NULL) STRICT;
"""
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
{_TABLES}
INSERT INTO sequence VALUES (0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""  # noqa: S608  # made of constants
# From the version to the next one, in one transaction: what a kill interrupts starts anew.
_MIGRATIONS: Final = {
    1: f"""
BEGIN IMMEDIATE;
{_TABLES}
INSERT INTO latest SELECT key, seq, payload FROM changes WHERE replaces;
INSERT INTO added SELECT seq, key, payload FROM changes WHERE NOT replaces;
INSERT INTO sequence SELECT coalesce(max(seq), 0) FROM changes;
DROP TABLE changes;
PRAGMA user_version = 2;
COMMIT;
""",  # noqa: S608  # made of constants
}

_FORGET: Final = "DELETE FROM latest WHERE key = ?"
_CLEAR: Final = "DELETE FROM added WHERE key = ?"
_REPLACE: Final = (
    "INSERT INTO latest (key, seq, payload) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, payload = excluded.payload"
)
_ADD: Final = "INSERT INTO added (key, seq, payload) VALUES (?, ?, ?)"
_READ: Final = (
    "SELECT key, replaces, payload FROM"
    " (SELECT seq, key, 1 AS replaces, payload FROM latest UNION ALL SELECT seq, key, 0, payload FROM added)"
    " ORDER BY seq"
)

Row = tuple[str, int, bytes]
"""Key, place in the order, payload."""
# Made at every opening: a state of an earlier release gets it then, and that release does not mind it.
_KEPT: Final = "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT"


class Store(Protocol):
    """Keeps Changes in order. Every method may be called from any thread and raises StateError."""

    def append(self, changes: Sequence[_core.StoredChange]) -> None:
        """Writes all or none; on the disk when it returns. A change that `replaces` removes the older ones
        of its key: this is the whole of compaction."""

    def forget(self, keys: Sequence[str]) -> None:
        """Removes every change of these keys, all or none; gone from the disk when it returns. A key that is not
        known is none. Only for what counts no more at all: nothing says afterwards that it ever was."""

    def read_all(self) -> Iterator[_core.StoredChange]:
        """Everything kept, oldest first."""

    def close(self) -> None:
        """Gives the directory up."""


class Documents(Protocol):
    """Keeps a few documents by name. Every method may be called from any thread and raises StateError."""

    def keep(self, key: str, value: bytes) -> None:
        """Writes a document in place of an earlier one of this name; on the disk when it returns."""

    def kept(self, key: str) -> bytes | None:
        """The document of this name."""


class SqliteStore:
    """A Store, and Documents in one SQLite file."""

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
            self._last = int(self._database.execute("SELECT last FROM sequence").fetchone()[0])
            self._added = bool(self._database.execute("SELECT EXISTS (SELECT 1 FROM added)").fetchone()[0])
            """Whether there may be rows to clear: mostly there are none, and looking for each key costs."""
        except BaseException:
            self._lock.release()
            raise

    def append(self, changes: Sequence[_core.StoredChange]) -> None:
        """See Store."""
        if not changes:
            return
        with self._mutex, self._saying("written"):
            last = self._last
            replacing, adding = _compacted(changes, last)
            with self._transaction():
                if self._added:
                    self._database.executemany(_CLEAR, [(key,) for key, _, _ in replacing])
                self._database.executemany(_REPLACE, replacing)
                self._database.executemany(_ADD, adding)
                self._database.execute("UPDATE sequence SET last = ?", (last + len(changes),))
            self._last = last + len(changes)
            self._added = self._added or bool(adding)

    def forget(self, keys: Sequence[str]) -> None:
        """See Store."""
        if not keys:
            return
        # In the order of the table, so that neighbours are removed together.
        named = [(key,) for key in sorted(set(keys))]
        with self._mutex, self._saying("written"), self._transaction():
            self._database.executemany(_FORGET, named)
            if self._added:
                self._database.executemany(_CLEAR, named)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or none, and on the disk at the end."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
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
        with self._mutex, self._saying("read"):
            cursor = self._database.execute(_READ)
        with contextlib.closing(cursor):
            while rows := self._page(cursor):
                for key, replaces, payload in rows:
                    yield _core.StoredChange(key, bool(replaces), payload)

    def _page(self, cursor: sqlite3.Cursor) -> list[tuple[str, int, bytes]]:
        with self._mutex, self._saying("read"):
            return cursor.fetchmany(PAGE)

    def keep(self, key: str, value: bytes) -> None:
        """See Documents."""
        with self._mutex, self._saying("written"):
            self._database.execute("INSERT OR REPLACE INTO kept (key, value) VALUES (?, ?)", (key, value))

    def kept(self, key: str) -> bytes | None:
        """See Documents."""
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


def kept_payloads(path: Path) -> Iterator[bytes]:
    """What a store keeps, as it stood at one moment, while its server may go on: takes no lock and writes nothing. A
    state that is not there keeps nothing. Raises StateError."""
    if not path.exists():
        return
    try:
        place = f"file:{quote(str(path.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, uri=True, isolation_level=None)) as database:
            database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            version = int(database.execute("PRAGMA user_version").fetchone()[0])
            ours = int(database.execute("PRAGMA application_id").fetchone()[0]) == APPLICATION_ID
            if not ours or version != SCHEMA_VERSION:
                raise StateError(f"the state `{path}` is not one of this release: it is not read")
            for _, _, payload in database.execute(_READ):
                yield bytes(payload)
    except sqlite3.Error as error:
        raise StateError(f"the state `{path}` can't be read: {error}") from error


def _compacted(changes: Sequence[_core.StoredChange], last: int) -> tuple[list[Row], list[Row]]:
    """What is left to write of changes in order: those that replace, by key, and those that add to them. Sorted by
    key, so that neighbours in the table are written together."""
    replacing: dict[str, Row] = {}
    adding: dict[str, list[Row]] = {}
    for seq, change in enumerate(changes, last + 1):
        row = (change.key, seq, change.payload)
        if change.replaces:
            replacing[change.key] = row
            adding.pop(change.key, None)
        else:
            adding.setdefault(change.key, []).append(row)
    return sorted(replacing.values()), [row for rows in adding.values() for row in rows]


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
    _sort_beside(database, path)
    while (version := number("user_version")) < SCHEMA_VERSION:
        if version not in _MIGRATIONS:
            raise StateError(f"the state `{path}` has version {version}, which no release has written")
        database.executescript(_MIGRATIONS[version])
    mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StateError(f"the state `{path}` is on a file system without write-ahead logging")
    # FULL: with NORMAL a commit in WAL mode may be lost at power failure, and a publisher has had its answer.
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA journal_size_limit = 16777216")
    database.execute(_KEPT)


def _sort_beside(database: sqlite3.Connection, path: Path) -> None:
    """Reading back in order may sort in a file: it belongs into our private directory, not into one that all share,
    and which a container may not have. The pragma is SQLite's only way to say so; without it the default stays."""
    place = str(path.parent.absolute()).replace("'", "''")
    with contextlib.suppress(sqlite3.Error):
        database.execute(f"PRAGMA temp_store_directory = '{place}'")


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
