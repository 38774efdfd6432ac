"""`watch` and `reloads`: a change comes into force by itself, whole, once; half a file never does."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signalwarden import config, reloads, watch
from signalwarden.app import App
from signalwarden.config import Loaded
from signalwarden.declared import View
from signalwarden.directory import Directory
from signalwarden.errors import ConfigurationError, StateError
from tests.serving import running

Eventually = Callable[..., None]
PERMIT = 'permit (principal, action == Action::"page.read", resource);\n'
FORBID = (
    'forbid (principal == Workload::"spiffe://prod.example/x", action == Action::"page.read", resource);\n'
)
QUIET_S = 0.15


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.01)
    monkeypatch.setattr(watch, "QUIET_S", QUIET_S)
    monkeypatch.setattr(reloads, "PAUSE_S", 0.01)


def changes(root: Path) -> list[dict[str, Any]]:
    lines = (root / "var/decisions.jsonl").read_bytes().splitlines()
    found = [json.loads(line) for line in lines]
    return [r for r in found if r["kind"] == "change" and r["change"].startswith("configuration_")][1:]


def revision(app: App) -> str:
    return str(app.readiness().detail["revision"])


def settle() -> None:
    """Longer than any change would take to be seen."""
    time.sleep(4 * QUIET_S + 0.3)


# ---- ways to change a directory ---------------------------------------------------------------------------


def in_place(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)


def renamed(root: Path, name: str, text: str) -> None:
    fresh = root / f"{name}.tmp"
    fresh.write_text(text)
    fresh.rename(root / name)


def by_vim(root: Path, name: str, text: str) -> None:
    """Moves the old file away, writes a new one, removes the old one."""
    path = root / name
    path.with_name("4913").write_text("")
    path.with_name("4913").unlink()
    path.rename(path.with_name(path.name + "~"))
    time.sleep(QUIET_S / 3)
    path.write_text(text)
    path.with_name(path.name + "~").unlink()


def as_before(root: Path, name: str, text: str) -> None:
    """Of the same size, written over in place, with its old time put back."""
    path = root / name
    before = path.stat()
    old = path.read_text()
    path.write_text(text)
    if len(text) == len(old):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("write", [in_place, renamed, by_vim, as_before])
def test_a_change_comes_into_force_by_itself_and_once(
    minimal_directory: Path, write: Callable[[Path, str, str], None], eventually: Eventually
) -> None:
    with running(minimal_directory) as app:
        before = revision(app)
        write(minimal_directory, "policies/pages.cedar", PERMIT.replace("page.read", "page.read", 1) + FORBID)
        eventually(lambda: revision(app) != before)
        after = revision(app)
        settle()
    (record,) = changes(minimal_directory)
    assert (record["actor"], record["previous"], record["revision"]) == ("watch", before, after)


def test_a_file_written_over_with_its_old_size_and_time_is_seen(minimal_directory: Path) -> None:
    before = Directory.glance(minimal_directory)
    text = (minimal_directory / "policies/pages.cedar").read_text()
    as_before(minimal_directory, "policies/pages.cedar", text.replace("permit", "forbid"))
    assert Directory.glance(minimal_directory) != before


def mount(root: Path, volume: Path, version: str, edit: Callable[[Path], None] = lambda _: None) -> None:
    """What the kubelet does with a ConfigMap: a new folder, and one link moved to it at once."""
    fresh = volume / f"..{version}"
    shutil.copytree(root, fresh, ignore=shutil.ignore_patterns("var"))
    edit(fresh)
    link = volume / "..data_tmp"
    link.symlink_to(fresh.name)
    link.rename(volume / "..data")
    for entry in fresh.iterdir():
        visible = volume / entry.name
        if not visible.is_symlink():
            visible.symlink_to(f"..data/{entry.name}")
    for old in volume.glob("..2*"):
        if old != fresh:
            shutil.rmtree(old)


def test_the_link_of_a_config_map_is_followed(
    minimal_directory: Path, tmp_path: Path, eventually: Eventually
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    mount(minimal_directory, volume, "2026_01")
    with running(volume) as app:
        for version in ("2026_02", "2026_03"):
            before = revision(app)

            def edit(fresh: Path, version: str = version) -> None:
                (fresh / "policies/pages.cedar").write_text(f'@id("{version}")\n{PERMIT}')

            mount(minimal_directory, volume, version, edit)
            eventually(lambda before=before: revision(app) != before)
        # The same again behind another link is no change.
        mount(minimal_directory, volume, "2026_04", edit)
        settle()
    assert [record["change"] for record in changes(volume)] == ["configuration_loaded"] * 2


# ---- half a file ------------------------------------------------------------------------------------------


def test_half_a_file_is_never_loaded(minimal_directory: Path, eventually: Eventually) -> None:
    """Each half would load: what it lacks is a forbid."""
    policies = [PERMIT, *(FORBID.replace("/x", f"/x{n}") for n in range(6))]
    with running(minimal_directory) as app:
        before = revision(app)
        with (minimal_directory / "policies/pages.cedar").open("w") as file:
            for policy in policies:
                file.write(policy)
                file.flush()
                time.sleep(QUIET_S / 2)
        eventually(lambda: revision(app) != before)
        settle()
    assert len(changes(minimal_directory)) == 1
    described = config.load(minimal_directory, time.time_ns() // 1000).described()
    assert len(described["policies"]) == len(policies)


def test_what_changes_while_it_is_read_is_not_loaded(
    minimal_directory: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """The writer is quick and strikes between reading and checking."""
    policy = minimal_directory / "policies/pages.cedar"
    judge, struck = config.judge_described, threading.Event()

    def slow(directory: Directory, now_us: int) -> tuple[Loaded, dict[str, Any]]:
        judged = judge(directory, now_us)
        if b"@id" in directory.files["policies/pages.cedar"] and not struck.is_set():
            policy.write_text(f'@id("second")\n{PERMIT}')
            struck.set()
        return judged

    with running(minimal_directory) as app:
        before = revision(app)
        monkeypatch.setattr(config, "judge_described", slow)
        policy.write_text(f'@id("first")\n{PERMIT}')
        eventually(lambda: revision(app) != before)
        settle()
    (record,) = changes(minimal_directory)
    assert record["difference"]["policies"]["added"] == ["second"]


def test_a_directory_that_never_stands_still_is_refused(
    minimal_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, count = config.judge_described, 0

    def restless(directory: Directory, now_us: int) -> tuple[Loaded, dict[str, Any]]:
        nonlocal count
        count += 1
        (minimal_directory / "entities.json").write_text("[]" + " " * count)
        return judge(directory, now_us)

    with running(minimal_directory) as app:
        before = revision(app)
        monkeypatch.setattr(config, "judge_described", restless)
        with pytest.raises(ConfigurationError, match="changed while it was read, 5 times in a row"):
            app.reload("test")
        assert revision(app) == before
        monkeypatch.undo()
    assert count == reloads.TRIES


def test_unrest_without_end_is_said_once(
    minimal_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "RESTLESS_S", 0.2)
    looked = watch.Watch(minimal_directory, lambda: True)
    looked.start()
    with caplog.at_level(logging.WARNING, logger="signalwarden"):
        give_up, said = time.monotonic() + 10, 0.0
        while time.monotonic() < (said + 0.5 if said else give_up):
            (minimal_directory / "entities.json").write_text("[]" + " " * int(time.monotonic() * 100 % 100))
            time.sleep(0.005)
            if not said and "without a pause" in caplog.text:
                said = time.monotonic()
        looked.stop()
    assert caplog.text.count("without a pause") == 1


# ---- what is no change ------------------------------------------------------------------------------------


def test_the_same_content_again_is_no_reload(minimal_directory: Path) -> None:
    with running(minimal_directory) as app:
        for path in minimal_directory.rglob("*.cedar"):
            renamed(minimal_directory, str(path.relative_to(minimal_directory)), path.read_text())
        (minimal_directory / "routes.yaml").touch()
        settle()
        counted = app.metrics_text()[0]
    assert changes(minimal_directory) == []
    assert b'signalwarden_reloads_total{result="done"} 0.0' in counted


def test_what_an_editor_leaves_behind_is_no_change(minimal_directory: Path) -> None:
    with running(minimal_directory):
        for name in (
            ".routes.yaml.swp",
            "routes.yaml~",
            "#routes.yaml#",
            "policies/.#pages.cedar",
            "policies/4913",
        ):
            (minimal_directory / name).write_text("half a thou")
        settle()
    assert changes(minimal_directory) == []


def test_what_was_reloaded_by_hand_is_not_reloaded_again(minimal_directory: Path) -> None:
    with running(minimal_directory) as app:
        in_place(minimal_directory, "policies/pages.cedar", PERMIT + FORBID)
        app.reload("SIGHUP")
        settle()
    assert [record["actor"] for record in changes(minimal_directory)] == ["SIGHUP"]


def test_a_watch_that_is_off_waits_for_a_reload(minimal_directory: Path, eventually: Eventually) -> None:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(settings.read_text() + "watch: false\n")
    with running(minimal_directory) as app:
        before = revision(app)
        in_place(minimal_directory, "policies/pages.cedar", PERMIT + FORBID)
        settle()
        assert revision(app) == before
        settings.write_text(settings.read_text().replace("watch: false", "watch: true"))
        app.reload("test")
        before = revision(app)
        in_place(minimal_directory, "policies/pages.cedar", PERMIT)
        eventually(lambda: revision(app) != before)
    assert [record["actor"] for record in changes(minimal_directory)] == ["test", "watch"]


# ---- a bad directory --------------------------------------------------------------------------------------


def test_a_bad_directory_is_said_once_and_forgotten_when_it_is_mended(
    minimal_directory: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    routes = minimal_directory / "routes.yaml"
    good = routes.read_text()
    with running(minimal_directory) as app:
        before = revision(app)
        routes.write_text("ruotes: []\n")
        eventually(lambda: app.readiness().detail["last_reload_refused"])
        settle()
        assert app.readiness().ready
        assert revision(app) == before
        numbers = app.metrics_text()[0]
        assert b'signalwarden_reloads_total{result="refused"} 1.0' in numbers
        assert b"signalwarden_directory_refused 1.0" in numbers
        routes.write_text(good)
        eventually(lambda: app.readiness().detail["last_reload_refused"] is None)
        assert b"signalwarden_directory_refused 0.0" in app.metrics_text()[0]
        routes.write_text("ruotes: []\n")
        eventually(lambda: app.readiness().detail["last_reload_refused"])
    found = changes(minimal_directory)
    assert [record["change"] for record in found] == ["configuration_refused"] * 2
    assert {record["actor"] for record in found} == {"watch"}
    assert caplog.text.count("reload by watch refused") == 2


def test_a_directory_that_is_gone_changes_nothing(minimal_directory: Path, eventually: Eventually) -> None:
    away, kept = (minimal_directory.with_name(name) for name in ("away", "kept"))
    # What the server writes lies elsewhere: its log begins anew where its file is gone, in a directory of that name.
    with (minimal_directory / "signalwarden.yaml").open("a") as settings:
        settings.write(f"state: sqlite:{kept}/state.db\nkeys: {kept}/keys\n")
        settings.write(f"decision_log: {{path: {kept}/decisions.jsonl, ring: {kept}/decisions.ring}}\n")
    with running(minimal_directory) as app:
        before = revision(app)
        minimal_directory.rename(away)
        eventually(lambda: app.readiness().detail["last_reload_refused"])
        away.rename(minimal_directory)
        eventually(lambda: app.readiness().detail["last_reload_refused"] is None)
        assert revision(app) == before


def test_a_warning_that_comes_with_a_change_is_said_with_it_and_once(
    minimal_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(minimal_directory) as app:
        for name in ("one.txt", "two.txt"):
            (minimal_directory / "policies" / name).write_text("words")
        app.reload("test")
        app.reload("test")
        for number in range(reloads.MAX_WARNINGS + 3):
            (minimal_directory / f"stray{number}.cedar").write_text("")
        app.reload("test")
    for name in ("one.txt", "two.txt"):
        assert caplog.text.count(f"policies/{name}: warning: not read: a policy file ends in `.cedar`") == 1
    assert caplog.text.count("stray") == reloads.MAX_WARNINGS
    assert "and 3 more warnings" in caplog.text


# ---- who is told ------------------------------------------------------------------------------------------


def test_who_follows_a_reload_is_told_after_it_and_can_not_undo_it(
    minimal_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def fails(_loaded: Loaded, _now: View) -> None:
        raise RuntimeError("the feed is sulking")

    with running(minimal_directory) as app:
        held = app._up().reloads
        held._on_swapped = (fails, lambda loaded, _: told.append(loaded.configuration.revision))
        assert [app.reload("test")] == told
    assert "could not follow a reload" in caplog.text


def test_a_failure_that_is_not_the_directorys_is_tried_again_later(
    minimal_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watch, "RETRY_S", 0.3)
    calls: list[float] = []

    def changed() -> bool:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise StateError("the disk is full")
        if len(calls) == 2:
            raise RuntimeError("a fault")
        return True

    looked = watch.Watch(minimal_directory, changed)
    looked.start()
    eventually(lambda: len(calls) == 3)
    settle()
    looked.stop()
    assert len(calls) == 3
    assert min(b - a for a, b in itertools.pairwise(calls)) >= 0.3
    assert "the disk is full" in caplog.text
    assert "the watch of the directory failed" in caplog.text


def test_a_watch_may_be_stopped_twice_and_without_a_start(minimal_directory: Path) -> None:
    looked = watch.Watch(minimal_directory, lambda: True)
    looked.stop()
    looked.stop()
