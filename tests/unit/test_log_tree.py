"""The tree of a log that is being written: what a crash, a full disk, a rotation or somebody else's hand leaves of it."""

from __future__ import annotations

import errno
import gzip
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from signalwarden.decision_log.integrity import log_keys, places, tree
from signalwarden.decision_log.integrity.log_keys import Handover, Trust, handovers_of, public_keys
from signalwarden.decision_log.integrity.merkle import fold, leaf_hash
from signalwarden.decision_log.integrity.notes import Checkpoint, Note, Verifier
from signalwarden.decision_log.integrity.places import tree_directory
from signalwarden.decision_log.integrity.tiles import Tile, write_tiles
from signalwarden.errors import BadInputError, KeysError, LogError
from tests.sealing import AT, SealedLog, copied, leaves_of, lines, rewrite

DAY_US = 86_400_000_000


def crashed(log: SealedLog, folder: Path, **options: object) -> SealedLog:
    """Another server on what a kill of the first one leaves."""
    log.settle()
    log.write(30)  # in the file, in no checkpoint
    assert log.tree.numbers()["log_tree_sealed"] < log.tree.numbers()["log_tree_size"]
    copied(log.path.parent, folder)
    log.stop()
    return SealedLog(folder, **options)  # type: ignore[arg-type]


@pytest.fixture
def slow(tmp_path: Path) -> SealedLog:
    """Signs its first batch, and then nothing before the stop."""
    return SealedLog(tmp_path / "var", every_s=1e9)


def patiently(log: SealedLog, count: int) -> None:
    log.write(count)
    log.settle()


def test_a_checkpoint_signs_all_lines_of_an_orderly_stop(slow: SealedLog) -> None:
    slow.write(10)
    slow.write(700)
    slow.stop()
    hashes = [leaf_hash(line) for line in slow.path.read_bytes().splitlines()]
    checkpoint, key = Trust(slow.name, public_keys(slow.keys, slow.name), []).opened(slow.checkpoint())
    assert checkpoint == Checkpoint("signalwarden/prod.example/decisions", 710, fold(hashes))
    assert str(key).startswith("signalwarden/prod.example/decisions+")
    assert slow.verify().good


def test_files_and_keys_are_private_and_keys_are_apart_from_the_log(slow: SealedLog) -> None:
    slow.write(300)
    slow.stop()
    for file in [*tree_directory(slow.path).rglob("*"), *slow.keys.rglob("*")]:
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file
    assert not [
        file
        for file in tree_directory(slow.path).rglob("*")
        if b"PRIVATE" in (file.read_bytes() if file.is_file() else b"")
    ]


def test_after_a_crash_the_tree_catches_up_from_the_file_and_says_so(slow: SealedLog, tmp_path: Path) -> None:
    slow.write(500)
    again = crashed(slow, tmp_path / "again", first=530)
    assert [(r["records"], r["size"]) for r in again.noted.of("log_tree_caught_up")] == [(30, 530)]
    assert again.tree.broken is None
    again.write(1)
    again.stop()
    report = again.verify()
    assert report.good, report.findings
    assert report.trees[0].agreed == 531


@pytest.mark.parametrize("compressed", [False, True])
def test_a_crash_behind_rotations_is_caught_up_through_all_files(tmp_path: Path, compressed: bool) -> None:
    log = SealedLog(tmp_path / "var", every_s=1e9, rotate_bytes=10_000)
    patiently(log, 100)
    for _ in range(7):
        log.write(100)
    assert len(log.files) == 8
    copied(log.path.parent, tmp_path / "again")
    log.stop()
    if compressed:
        for file in (tmp_path / "again").glob("decisions-*.jsonl"):
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    again = SealedLog(tmp_path / "again", rotate_bytes=10_000, first=800)
    assert [r["records"] for r in again.noted.of("log_tree_caught_up")] == [700]
    again.write(100)
    again.stop()
    report = again.verify()
    assert report.good, report.findings
    assert (report.trees[0].agreed, report.files) == (900, 9)


def test_a_log_from_before_the_tree_is_taken_in_whole(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    folder.mkdir()
    (folder / "decisions-000001-20261128T101500Z.jsonl").write_bytes(
        b"".join(x + b"\n" for x in lines(range(400)))
    )
    (folder / "decisions.jsonl").write_bytes(
        b"".join(line + b"\n" for line in lines(range(400, 700))) + b'{"half'
    )
    log = SealedLog(folder)
    assert [(r["records"], r["origin"]) for r in log.noted.of("log_tree_begun")] == [(700, log.name)]
    assert [r["key"] for r in log.noted.of("log_key_made")] == [str(public_keys(log.keys, log.name)[0])]
    log.stop()
    assert log.verify().good
    assert log.verify().trees[0].agreed == 700


def test_an_orderly_restart_catches_up_with_nothing(slow: SealedLog) -> None:
    slow.write(300)
    slow.restart()
    slow.write(300)
    slow.stop()
    assert [record["change"] for record in slow.noted.records] == ["log_key_made"]
    assert slow.verify().trees[0].agreed == 600


# ---- what is never signed over -------------------------------------------------------------------------------------


def cut_tail(log: SealedLog) -> None:
    rewrite(log.path, lambda kept: kept[:-2])


def change_line(log: SealedLog) -> None:
    rewrite(log.path, lambda kept: [*kept[:-1], kept[-1].replace(b'"v":1', b'"v":2')])


def change_first(log: SealedLog) -> None:
    rewrite(log.path, lambda kept: [kept[0].replace(b'"v":1', b'"v":2'), *kept[1:]])


def empty(log: SealedLog) -> None:
    log.path.write_bytes(b"")


def lose(log: SealedLog) -> None:
    log.path.unlink()


def damage_tile(log: SealedLog) -> None:
    tile = tree_directory(log.path) / "1/tile/0/001.p/44"
    tile.write_bytes(bytes(44 * 32))


def lose_tile(log: SealedLog) -> None:
    (tree_directory(log.path) / "1/tile/0/001.p/44").unlink()


def lose_tree(log: SealedLog) -> None:
    copied(tree_directory(log.path), log.path.with_name("elsewhere"))
    for file in sorted(tree_directory(log.path).rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def lose_head(log: SealedLog) -> None:
    (tree_directory(log.path) / "1/head.json").unlink()


def damage_head(log: SealedLog) -> None:
    (tree_directory(log.path) / "1/head.json").write_bytes(b'{"size": "many"}')


def damage_checkpoint(log: SealedLog) -> None:
    (tree_directory(log.path) / "1/checkpoint").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (cut_tail, "is shorter than"),
        (change_line, "that were signed are not what stands there"),
        (change_first, "is not there, or its first line is another"),
        (empty, "is not there"),
        (lose, "is not there"),
        (damage_tile, "is not the one that the checkpoint at 300 signs"),
        (lose_tile, "is missing"),
        (lose_tree, "is missing"),
        (lose_head, "is missing"),
        (damage_head, "is damaged"),
        (damage_checkpoint, "expected a signed note"),
    ],
)
def test_a_tree_that_is_contradicted_is_never_signed_over(
    slow: SealedLog, harm: Callable[[SealedLog], None], why: str
) -> None:
    slow.write(300)
    slow.stop()
    kept = slow.checkpoint()
    harm(slow)
    slow.start()
    (broken,) = slow.noted.of("log_tree_broken")
    assert why in broken["why"]
    assert broken["origin"] == "signalwarden/prod.example/decisions/2"
    assert why in str(slow.tree.detail()["broken"])
    assert slow.tree.numbers()["log_tree_broken"] == 1
    slow.write(50)
    slow.restart()
    assert len(slow.noted.of("log_tree_broken")) == 1, "the new tree goes on"
    slow.write(50)
    slow.stop()
    note = Checkpoint.parse(Note.parse(slow.checkpoint(2)).text)
    assert (note.origin, note.size) == ("signalwarden/prod.example/decisions/2", 100)
    if (tree_directory(slow.path) / "1/checkpoint").exists() and harm is not damage_checkpoint:
        assert slow.checkpoint() == kept
    report = slow.verify()
    assert report.trees[-1].agreed == 100, report
    assert not report.good


def test_somebody_who_empties_the_file_while_it_is_written_is_noticed_at_the_next_record(
    slow: SealedLog,
) -> None:
    slow.write(200)
    slow.path.write_bytes(b"")
    slow.write(10)
    (broken,) = slow.noted.of("log_tree_broken")
    assert "somebody else wrote to" in broken["why"]
    slow.write(10)
    slow.stop()
    report = slow.verify()
    assert [finding.kind for finding in report.findings] == ["truncated"]
    assert [tree.size for tree in report.trees] == [200, 10]


def test_a_file_that_another_program_moves_away_is_no_contradiction(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "var")
    log.write(100)
    log.path.rename(tmp_path / "decisions.jsonl.1")
    log.write(100)
    log.stop()
    assert log.noted.of("log_tree_broken") == []
    report = log.verify()
    assert report.good
    assert (report.trees[0].pruned, report.trees[0].agreed) == ([(0, 99)], 100)


def test_pruned_files_leave_a_tree_that_is_still_whole(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "var", rotate_bytes=10_000, keep_files=2)
    for _ in range(12):
        log.write(100)
    log.restart()
    log.write(100)
    log.stop()
    report = log.verify()
    assert report.good, report.findings
    assert report.trees[0].size == 1_300
    assert report.trees[0].pruned == [(0, 999)]
    assert report.trees[0].agreed == 300


# ---- disks ---------------------------------------------------------------------------------------------------------


def test_a_batch_that_was_written_in_parts_is_in_the_tree_once(
    slow: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    real, room = os.write, [250]

    def write(fd: int, data: memoryview) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, data[: room[0]])
        room[0] -= done
        return done

    slow.write(5)
    slow.settle()
    batch = b"".join(line + b"\n" for line in lines(range(5, 25)))
    monkeypatch.setattr("signalwarden.decision_log.sink.os.write", write)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            slow.sink.write(batch)
    room[0] = 1 << 30
    slow.sink.write(batch)
    slow.tree.took(len(batch), leaves_of(batch))
    monkeypatch.undo()
    slow.stop()
    assert slow.tree.broken is None
    assert slow.verify().trees[0].agreed == 25


def test_a_full_disk_of_the_tree_delays_no_record_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    real = write_tiles

    def write(directory: Path, tiles: dict[Tile, bytes]) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(directory, tiles)

    monkeypatch.setattr(tree, "write_tiles", write)
    monkeypatch.setattr(tree, "RETRY_S", 0.01)
    monkeypatch.setattr(tree, "MAX_PENDING", 1_000)
    log = SealedLog(tmp_path / "var")
    patiently(log, 100)
    full.set()
    for _ in range(30):
        log.write(100)
    assert "no space left" in str(log.tree.detail()["last_error"])
    assert log.tree.numbers()["log_tree_failures"] > 0
    full.clear()
    log.write(100)
    log.settle()
    log.write(100)
    log.settle()
    assert log.tree.detail()["last_error"] is None
    log.stop()
    assert log.tree.broken is None
    report = log.verify()
    assert report.good, report.findings
    assert report.trees[0].agreed == 3_300


def test_a_tree_that_can_not_be_kept_at_all_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/decisions.tree").write_bytes(b"in the way")
    with pytest.raises(LogError, match="can't be written: file exists"):
        SealedLog(tmp_path / "var")


def test_earlier_checkpoints_are_kept_and_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_HISTORY", 10)
    log = SealedLog(tmp_path / "var")
    for _ in range(40):
        patiently(log, 3)
    log.stop()
    kept = [
        Checkpoint.parse(Note.parse(note).text).size
        for note in places.history(tree_directory(log.path) / "1")
    ]
    assert kept[-3:] == [114, 117, 120]
    assert 5 <= len(kept) <= 12
    assert log.verify().good


# ---- keys ----------------------------------------------------------------------------------------------------------


def test_a_new_key_is_vouched_for_by_the_old_one_and_the_old_one_is_gone(tmp_path: Path) -> None:
    now = [AT]
    log = SealedLog(tmp_path / "var", clock=lambda: now[0])
    patiently(log, 100)
    old = public_keys(log.keys, log.name)
    before = log.checkpoint()
    now[0] += 31 * DAY_US
    patiently(log, 100)
    both = Note.parse(log.checkpoint())
    (new,) = public_keys(log.keys, log.name)
    assert new not in old
    assert {s.key_id for s in both.signatures} == {new.key_id, old[0].key_id}
    patiently(log, 100)
    log.stop()
    assert [s.key_id for s in Note.parse(log.checkpoint()).signatures] == [new.key_id]
    for given in ([new], old):
        report = log.verify(given=given, older=[("before", before)])
        assert report.good, report.findings
        assert report.trees[0].key == new.short
    assert len(list(log.keys.glob("*.pem"))) == 1


def test_an_old_key_counts_for_nothing_after_its_handover(tmp_path: Path) -> None:
    now = [AT]
    log = SealedLog(tmp_path / "var", clock=lambda: now[0])
    patiently(log, 100)
    (stolen,) = log.keys.glob("*.pem")
    kept = stolen.read_bytes()
    now[0] += 31 * DAY_US
    patiently(log, 100)
    patiently(log, 100)
    log.stop()
    made = tmp_path / "thief" / "keys"
    made.mkdir(parents=True)
    (made / stolen.name).write_bytes(kept)
    (made / stolen.name).chmod(0o600)
    thief = log_keys.LogKeys(made, log.name, tree=tmp_path / "thief", clock=lambda: AT)
    forged = thief.sign(Checkpoint(log.name, 300, bytes(32)))
    handovers, bad = handovers_of(tree_directory(log.path))
    assert bad == []
    trust = Trust(log.name, public_keys(log.keys, log.name), handovers)
    with pytest.raises(BadInputError, match="had been handed over when it signed this"):
        trust.opened(str(forged).encode())
    assert trust.opened(str(thief.sign(Checkpoint(log.name, 50, bytes(32)))).encode())[0].size == 50


def test_a_handover_that_is_not_signed_by_both_vouches_for_nobody(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "var")
    patiently(log, 10)
    log.stop()
    (ours,) = public_keys(log.keys, log.name)
    strangers = log_keys.LogKeys(tmp_path / "k", log.name, tree=tmp_path / "t", clock=lambda: AT)
    (theirs,) = strangers.verifiers
    checkpoint = Checkpoint.parse(Note.parse(log.checkpoint()).text)
    text = Handover(checkpoint, ours, theirs).text
    alone = Note(text, strangers.sign(Checkpoint("x", 0, bytes(32))).signatures)
    forged = str(Note.signed(text, [strangers._keys[0].signer]))
    for content in (str(alone), forged):
        with pytest.raises(BadInputError, match=r"not signed by both|is not good"):
            Handover.parse(content.encode())
    (tree_directory(log.path) / "keys").mkdir()
    (tree_directory(log.path) / "keys/1-0.note").write_text(forged)
    report = log.verify()
    assert [finding.kind for finding in report.findings] == ["key"]


def test_a_kill_between_the_new_key_and_its_handover_is_made_up_for(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "var")
    patiently(log, 10)
    log.stop()
    old = public_keys(log.keys, log.name)
    other = log_keys.LogKeys(tmp_path / "k", log.name, tree=tmp_path / "t", clock=lambda: AT + 31 * DAY_US)
    (made,) = (tmp_path / "k").glob("*.pem")
    made.rename(log.keys / made.name)
    log.start()
    patiently(log, 10)
    log.stop()
    assert public_keys(log.keys, log.name) == other.verifiers
    assert log.verify(given=old, older=[]).good


@pytest.mark.parametrize("content", [b"no key", b""])
def test_a_key_that_is_none_stops_the_start(tmp_path: Path, content: bytes) -> None:
    log = SealedLog(tmp_path / "var")
    log.stop()
    (file,) = log.keys.glob("*.pem")
    file.write_bytes(content)
    with pytest.raises(KeysError, match=r"is no private key of Ed25519"):
        log.start()
    file.chmod(0o644)
    with pytest.raises(KeysError, match="can be read by other users"):
        public_keys(log.keys, log.name)


def test_a_lost_key_is_replaced_in_the_open(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "var")
    patiently(log, 10)
    log.stop()
    old = public_keys(log.keys, log.name)
    for file in log.keys.iterdir():
        file.unlink()
    log.start()
    patiently(log, 10)
    log.stop()
    assert len(log.noted.of("log_key_made")) == 2
    assert log.noted.of("log_tree_broken") == []
    assert log.verify().good
    report = log.verify(given=old, older=[])
    assert [finding.kind for finding in report.findings] == ["signature"]


def test_places_that_are_damaged_are_named(tmp_path: Path) -> None:
    for content in (b"{", b"[]", orjson.dumps({"size": 1}), b'{"size":1,"digest":2,"first":0,"offset":0}'):
        (tmp_path / "head.json").write_bytes(content)
        with pytest.raises(LogError, match=r"head.json` is damaged"):
            places.read_head(tmp_path)
    assert Verifier.parse(str(Verifier("a", bytes(32)))) == Verifier("a", bytes(32))


def test_a_fault_of_the_tree_itself_holds_no_record_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SealedLog(tmp_path / "var")
    patiently(log, 10)
    log.tree.took(0, b"")
    monkeypatch.setattr(log.tree, "_take", lambda size, leaves: 1 / 0)
    log.write(10)
    monkeypatch.undo()
    log.write(10)
    log.settle()
    log.stop()
    assert log.tree.broken is None
    assert log.verify().trees[0].agreed == 30
