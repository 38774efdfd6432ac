"""What another release kept: that of the one before is read whole, and what nobody knows is refused at the start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from signalwarden._core import Engine, StoredChange
from signalwarden.app import App
from signalwarden.errors import StateError
from signalwarden.state import SqliteStore
from tests.asking import AGENT, NOW, OWN_VECTORS, load, running

RECORDED: Final = OWN_VECTORS / "state" / "before_tasks.json"
TIMEOUT_S = 30.0


def kept_by_the_release_before() -> tuple[dict[str, str], list[StoredChange]]:
    """Its configuration, and the rows of its state: made by its own core, recorded once."""
    recorded: dict[str, Any] = json.loads(RECORDED.read_bytes())
    rows = [
        StoredChange(key, replaces, json.dumps(payload, separators=(",", ":")).encode())
        for key, replaces, payload in recorded["rows"]
    ]
    return recorded["files"], rows


@pytest.fixture
def taken_over(tmp_path: Path) -> Engine:
    files, rows = kept_by_the_release_before()
    with SqliteStore(tmp_path / "state.db") as store:
        store.append(rows)
    engine = running(load(files))
    with SqliteStore(tmp_path / "state.db") as store:
        engine.apply(list(store.read_all()), now_us=NOW)
    return engine


def test_signals_of_the_release_before_are_read_with_what_contradicts_them(taken_over: Engine) -> None:
    signals = json.loads(taken_over.signals(subject=None, limit=10, now_us=NOW))["signals"]
    assert {(s["subject"], s["state"], s["value"]) for s in signals} == {
        (AGENT, "disputed", 3),
        ("spiffe://prod.example/other", "fresh", 4),
    }


def test_switches_and_revocations_of_the_release_before_are_in_force(taken_over: Engine) -> None:
    assert taken_over.switched_off() == [("spiffe://prod.example/late", None)]
    found = json.loads(taken_over.revocations(limit=10))["revocations"]
    assert len(found) == 4
    assert {tuple(sorted(revocation)) for revocation in found} == {
        ("issued_before", "issuer"),
        ("issued_before", "subject"),
        ("issuer", "jti"),
        ("digest",),
    }


def test_the_recorded_state_has_every_kind_of_change_that_the_release_before_kept() -> None:
    _, rows = kept_by_the_release_before()
    kinds = {json.loads(row.payload)["change"] for row in rows}
    assert kinds == {"signal_published", "publisher_switched", "stream_moved", "revoked", "time_mark"}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"v":1,"change":"dream_had"}', "of a kind that this build does not know: `dream_had`"),
        (b'{"v":2,"change":"time_mark","at_us":1}', "has version 2, this build reads version 1"),
        (b'{"v":1,"change":"time_mark","at_us":1,"by":"x"}', "unknown field `by`"),
        (b"torn", "is not a JSON object"),
    ],
)
def test_a_change_that_is_not_understood_refuses_to_start(
    minimal_directory: Path, payload: bytes, said: str
) -> None:
    with SqliteStore(minimal_directory / "var/state.db") as store:
        store.append([StoredChange("strange", True, payload)])
    for _ in range(2):  # and leaves nothing open
        with pytest.raises(StateError, match="the state holds a change that can't be read") as caught:
            App(minimal_directory).start()
        assert said in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_second_server_on_a_directory_gets_one_clear_sentence_and_status_2(minimal_directory: Path) -> None:
    app = App(minimal_directory)
    app.start()
    try:
        command = [sys.executable, "-m", "signalwarden.cli", "serve", "--config", str(minimal_directory)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    finally:
        app.stop()
    assert second.returncode == 2
    [sentence] = second.stderr.strip().splitlines()
    assert "is in use by process" in sentence
    assert second.stdout == ""
