"""`state`: what was acknowledged is there after any death, in order, and a directory has one owner."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from signalwarden._core import StoredChange
from signalwarden.errors import StateError
from signalwarden.state import PAGE, SCHEMA_VERSION, SqliteStore


def change(key: str, text: str, *, replaces: bool = True) -> StoredChange:
    return StoredChange(key, replaces, text.encode())


def content(store: SqliteStore) -> list[tuple[str, bool, bytes]]:
    return [(c.key, c.replaces, c.payload) for c in store.read_all()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "state.db"


def test_changes_come_back_in_order_after_a_restart(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append([change("a", "1"), change("b", "2")])
        store.append([change("log", "3", replaces=False), change("log", "4", replaces=False)])
    with SqliteStore(path) as store:
        assert content(store) == [
            ("a", True, b"1"),
            ("b", True, b"2"),
            ("log", False, b"3"),
            ("log", False, b"4"),
        ]


def test_a_replacing_change_removes_the_older_ones_of_its_key_and_moves_to_the_end(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append([change("a", "1"), change("b", "2"), change("c", "3", replaces=False)])
        store.append([change("a", "4"), change("a", "5"), change("c", "6", replaces=False)])
        assert content(store) == [
            ("b", True, b"2"),
            ("c", False, b"3"),
            ("a", True, b"5"),
            ("c", False, b"6"),
        ]


def test_more_rows_than_a_page_come_back(path: Path) -> None:
    count = 2 * PAGE + 1
    with SqliteStore(path) as store:
        store.append([change(str(n), str(n)) for n in range(count)])
        assert [c.payload for c in store.read_all()] == [str(n).encode() for n in range(count)]


def test_a_thousand_replacements_keep_one_row(path: Path) -> None:
    with SqliteStore(path) as store:
        for n in range(10):
            store.append([change("time", f"{n}-{i}") for i in range(100)])
        assert content(store) == [("time", True, b"9-99")]


def test_files_are_private(path: Path) -> None:
    before = os.umask(0)
    try:
        with SqliteStore(path) as store:
            store.append([change("a", "1")])
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert {"state.db", "state.db-wal", "lock"} <= modes.keys()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_owner_is_told_who_the_first_is(path: Path) -> None:
    with SqliteStore(path), pytest.raises(StateError, match=rf"in use by process {os.getpid()}$"):
        SqliteStore(path)
    SqliteStore(path).close()


def test_a_second_owner_is_refused_whatever_its_file_is_called(path: Path) -> None:
    with SqliteStore(path), pytest.raises(StateError, match="in use"):
        SqliteStore(path.with_name("other.db"))


def test_a_failed_open_gives_the_lock_back(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, and long enough to be seen as none" * 10)
    for _ in range(2):
        with pytest.raises(StateError, match="can't be opened"):
            SqliteStore(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StateError, match="newer signalwarden"):
        SqliteStore(path)


VERSION_1 = """
CREATE TABLE changes (
    seq      INTEGER PRIMARY KEY,
    key      TEXT NOT NULL,
    replaces INTEGER NOT NULL,
    payload  BLOB NOT NULL
) STRICT;
CREATE INDEX changes_key ON changes (key);
PRAGMA application_id = 0x53575331;
PRAGMA user_version = 1;
"""


def of_version_1(path: Path, *rows: tuple[str, bool, bytes]) -> None:
    """A state as release 0.1.0 left it."""
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(VERSION_1)
        database.executemany("INSERT INTO changes (key, replaces, payload) VALUES (?, ?, ?)", rows)
    database.close()


def test_a_state_of_version_1_is_taken_over_in_its_order(path: Path) -> None:
    of_version_1(path, ("b", True, b"1"), ("b", False, b"2"), ("a", True, b"3"), ("c", False, b"4"))
    with SqliteStore(path) as store:
        assert content(store) == [
            ("b", True, b"1"),
            ("b", False, b"2"),
            ("a", True, b"3"),
            ("c", False, b"4"),
        ]
        store.append([change("b", "5")])
    with SqliteStore(path) as store:
        assert content(store) == [("a", True, b"3"), ("c", False, b"4"), ("b", True, b"5")]


def test_an_empty_state_of_version_1_is_taken_over(path: Path) -> None:
    of_version_1(path)
    with SqliteStore(path) as store:
        store.append([change("a", "1")])
        assert content(store) == [("a", True, b"1")]


def test_a_migration_that_fails_leaves_the_old_state_as_it_was(path: Path) -> None:
    of_version_1(path, ("a", True, b"1"), ("a", True, b"2"))  # two that replace: no release has written that
    for _ in range(2):
        with pytest.raises(StateError, match="can't be opened"):
            SqliteStore(path)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM changes").fetchone() == (2,)
    database.close()


def test_a_version_that_never_was_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 0")
    with pytest.raises(StateError, match="no release has written"):
        SqliteStore(path)


def test_changes_of_one_batch_count_in_their_order(path: Path) -> None:
    batch = [
        change("a", "1", replaces=False),
        change("a", "2"),
        change("a", "3", replaces=False),
        change("b", "4"),
    ]
    with SqliteStore(path) as store:
        store.append([change("a", "0", replaces=False)])
        store.append(batch)
        assert content(store) == [("a", True, b"2"), ("a", False, b"3"), ("b", True, b"4")]


def test_the_order_goes_on_after_a_restart(path: Path) -> None:
    for n in range(3):
        with SqliteStore(path) as store:
            store.append([change(f"key {9 - n}", str(n)), change("log", str(n), replaces=False)])
    with SqliteStore(path) as store:
        assert [payload for _, _, payload in content(store)] == [b"0", b"0", b"1", b"1", b"2", b"2"]


def test_a_foreign_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StateError, match="another program"):
        SqliteStore(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(StateError) as caught:
        SqliteStore(tmp_path / "var" / "state.db")
    assert len(str(caught.value).splitlines()) == 1


def test_a_failed_append_keeps_nothing_of_its_batch(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append([change("a", "1")])
        with sqlite3.connect(path) as other:
            other.execute(
                "CREATE TRIGGER no BEFORE INSERT ON latest WHEN new.key = 'bad'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        with pytest.raises(StateError, match="can't be written"):
            store.append([change("a", "2"), change("bad", "3")])
        store.append([change("c", "4")])
        assert content(store) == [("a", True, b"1"), ("c", True, b"4")]


def test_what_is_forgotten_is_gone_whole_after_a_restart_and_nothing_else_is(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append([change("a", "1"), change("b", "2"), change("c", "3")])
        store.append([change("a", "4", replaces=False), change("d", "5", replaces=False)])
        store.forget(["a", "d", "never was", "a"])
        assert content(store) == [("b", True, b"2"), ("c", True, b"3")]
    with SqliteStore(path) as store:
        assert content(store) == [("b", True, b"2"), ("c", True, b"3")]
        store.append([change("a", "6")])
        assert content(store)[-1] == ("a", True, b"6"), "a key may come again, at the end"
        store.forget([])


def test_a_forgetting_that_fails_forgets_nothing(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append([change("a", "1"), change("kept", "2")])
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER no BEFORE DELETE ON latest WHEN old.key = 'kept'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        with pytest.raises(StateError, match="can't be written"):
            store.forget(["a", "kept"])
        store.append([change("c", "3")])
        assert content(store) == [("a", True, b"1"), ("kept", True, b"2"), ("c", True, b"3")]


def test_ten_thousand_keys_are_forgotten_at_once(path: Path) -> None:
    keys = [f"task {n}" for n in range(10_000)]
    with SqliteStore(path) as store:
        store.append([change(key, "x") for key in keys])
        store.append([change("live", "x")])
        store.forget(keys)
        assert content(store) == [("live", True, b"x")]


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(StateError, match="closed"):
        store.append([change("a", "1")])
    with pytest.raises(StateError, match="closed"):
        store.forget(["a"])
    with pytest.raises(StateError, match="closed"):
        list(store.read_all())


CHILD = """\
import sys
from pathlib import Path
from signalwarden._core import StoredChange
from signalwarden.state import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
n = 0
while True:
    # two changes that belong together, and one that replaces: none may be seen without the others
    store.append([
        StoredChange(f"a{n}", False, b"%d" % n),
        StoredChange(f"b{n}", False, b"%d" % n),
        StoredChange("last", True, b"%d" % n),
    ])
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
    n += 1
"""


def killed_after(path: Path, acknowledgements: int, pause_s: float) -> int:
    """Runs a child that appends, kills it in the midst; the last number that it had acknowledged."""
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline() for _ in range(acknowledgements)]
            time.sleep(pause_s)
        finally:
            child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines()
        child.wait(10)
    return int([line for line in lines if line.strip()][-1])


def test_every_acknowledged_change_survives_a_kill(path: Path) -> None:
    for round_ in range(5):
        acknowledged = killed_after(path, 10 + 7 * round_, 0.003 * round_)
        with SqliteStore(path) as store:
            rows = content(store)
        [newest] = [int(payload) for key, _, payload in rows if key == "last"]
        assert newest >= acknowledged
        for prefix in "ab":
            kept = [int(payload) for key, _, payload in rows if key.startswith(prefix)]
            assert kept[-newest - 1 :] == list(range(newest + 1))


def test_documents_are_kept_by_name_over_a_restart(path: Path) -> None:
    with SqliteStore(path) as store:
        assert store.kept("a") is None
        store.keep("a", b"1")
        store.keep("a", b"2")
        store.keep("b", b"\0")
    with SqliteStore(path) as store:
        assert (store.kept("a"), store.kept("b")) == (b"2", b"\0")
        assert content(store) == []
    with pytest.raises(StateError, match="closed"):
        store.keep("a", b"3")


def test_a_state_of_a_release_without_documents_gets_them(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append([change("a", "1")])
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE kept")
    with SqliteStore(path) as store:
        assert content(store) == [("a", True, b"1")]
        store.keep("a", b"1")
        assert store.kept("a") == b"1"
