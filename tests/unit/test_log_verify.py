"""`log verify`: a log that was tampered with is found, and each place is named by file and line."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from signalwarden.decision_log.integrity.edge import Edge
from signalwarden.decision_log.integrity.log_keys import public_keys
from signalwarden.decision_log.integrity.merkle import leaf_hash
from signalwarden.decision_log.integrity.notes import Checkpoint, Note, Signer
from signalwarden.decision_log.integrity.places import tree_directory
from signalwarden.decision_log.integrity.tiles import tile_path, write_files
from signalwarden.decision_log.integrity.verify import Report
from signalwarden.errors import BadInputError, LogError
from tests.sealing import SealedLog, copied, lines, rewrite


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SealedLog]:
    """900 lines in three files of 300."""
    made = SealedLog(tmp_path / "var", rotate_bytes=len(b"".join(lines(range(100)))) * 3 + 1_000)
    for _ in range(9):
        made.write(100)
    assert [len(file.read_bytes().splitlines()) for file in made.files] == [300, 300, 300]
    made.stop()
    yield made
    made.stop()


def told(report: Report) -> list[tuple[str, str, int]]:
    return [(finding.kind, finding.file, finding.line) for finding in report.findings]


def change(line: bytes) -> bytes:
    return line.replace(b'"v":1', b'"v":2')


def test_a_log_that_was_left_alone_is_good(log: SealedLog) -> None:
    report = log.verify()
    assert report.good, report.findings
    assert (report.lines, report.files) == (900, 3)
    assert [(tree.size, tree.agreed, tree.unsealed, tree.pruned) for tree in report.trees] == [
        (900, 900, 0, [])
    ]
    assert report.trees[0].origin == "signalwarden/prod.example/decisions"


@pytest.mark.parametrize("file", [0, 1, 2])
@pytest.mark.parametrize("line", [1, 2, 150, 299, 300])
def test_a_flipped_bit_is_found_in_its_line(log: SealedLog, file: int, line: int) -> None:
    def flip(kept: list[bytes]) -> list[bytes]:
        kept[line - 1] = kept[line - 1][:-3] + bytes([kept[line - 1][-3] ^ 1]) + kept[line - 1][-2:]
        return kept

    rewrite(log.files[file], flip)
    report = log.verify()
    assert told(report) == [("changed", log.files[file].name, line)]
    assert report.findings[0].record == 300 * file + line - 1


@pytest.mark.parametrize(
    ("tampering", "kind", "line", "count"),
    [
        (lambda kept: [*kept[:49], *kept[50:]], "removed", 49, 1),
        (lambda kept: [*kept[:49], *kept[249:]], "removed", 49, 1),
        (lambda kept: [*kept[:50], b'{"v":1,"made":"up"}', *kept[50:]], "inserted", 51, 1),
        (lambda kept: [*kept[:50], kept[20], *kept[50:]], "inserted", 51, 1),
        (lambda kept: [*kept[:50], kept[51], kept[50], *kept[52:]], "moved", 52, 1),
        (lambda kept: [kept[200], *kept[:200], *kept[201:]], "moved", 1, 1),
        (lambda kept: [*kept[:50], b"no JSON", *kept[51:]], "changed", 51, 1),
        (lambda kept: [*kept[:50], *map(change, kept[50:60]), *kept[60:]], "changed", 51, 10),
        (lambda kept: kept[:-7], "removed", 293, 1),
    ],
    ids=["removed", "200 removed", "inserted", "copied", "swapped", "moved", "no JSON", "ten changed", "cut"],
)
def test_what_was_done_to_lines_is_named(
    log: SealedLog, tampering: Callable[[list[bytes]], list[bytes]], kind: str, line: int, count: int
) -> None:
    middle = log.files[1]
    rewrite(middle, tampering)
    report = log.verify()
    assert told(report)[0] == (kind, middle.name, line)
    assert {finding.kind for finding in report.findings} == {kind}
    assert len(report.findings) == count


def test_the_first_line_of_a_file_that_was_removed_is_missing_after_the_last_of_the_file_before(
    log: SealedLog,
) -> None:
    rewrite(log.files[1], lambda kept: kept[1:])
    report = log.verify()
    assert told(report) == [("removed", log.files[0].name, 300)]
    assert report.findings[0].record == 300


def test_first_lines_that_were_removed_are_not_taken_for_pruned(log: SealedLog) -> None:
    rewrite(log.files[0], lambda kept: kept[3:])
    report = log.verify()
    assert told(report) == [("removed", log.files[0].name, 0)]
    assert "records 0 to 2 are missing" in report.findings[0].message
    log.files[0].unlink()
    rewrite(log.files[0], lambda kept: kept[1:])
    report = log.verify()
    assert told(report) == [("removed", log.files[0].name, 0)]
    assert report.trees[0].pruned == [(0, 299)]


def test_a_log_that_was_emptied_is_found(log: SealedLog) -> None:
    log.path.write_bytes(b"")
    assert (
        told(log.verify()) == [("truncated", "decisions.jsonl", 0)] or told(log.verify())[0][0] == "truncated"
    )
    for file in log.files[:-1]:
        file.unlink()
    report = log.verify()
    assert told(report) == [("truncated", "decisions.jsonl", 0)]
    log.path.unlink()
    assert told(log.verify()) == [("truncated", "decisions.jsonl", 0)]


def test_a_truncated_tail_is_found(log: SealedLog) -> None:
    rewrite(log.path, lambda kept: kept[:-5])
    report = log.verify()
    assert told(report) == [("truncated", "decisions.jsonl", 295)]
    assert "records 895 to 899 are missing" in report.findings[0].message


def test_half_a_line_at_the_end_is_said_and_in_the_middle_of_the_log_it_is_found(log: SealedLog) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"v":1,"kind":')
    report = log.verify()
    assert report.good
    assert report.notes == ["`decisions.jsonl:301` is half a line: cut off by a crash, or being written"]
    with log.files[0].open("ab") as file:
        file.write(b'{"v":1,"kind":')
    assert told(log.verify()) == [("changed", log.files[0].name, 301)]


def test_a_file_in_the_middle_that_was_removed_is_named_and_the_oldest_counts_as_pruned(
    log: SealedLog,
) -> None:
    first, middle, _ = log.files
    name = middle.name
    kept = middle.read_bytes()
    middle.unlink()
    report = log.verify()
    assert told(report) == [("missing_file", name, 0)]
    assert "records 300 to 599 are missing with it" in report.findings[0].message
    middle.write_bytes(kept)
    first.unlink()
    report = log.verify()
    assert report.good, report.findings
    assert report.trees[0].pruned == [(0, 299)]
    assert report.trees[0].agreed == 600


def test_a_foreign_file_is_named(log: SealedLog) -> None:
    name = log.files[0].name.replace("000001", "000000")
    log.path.with_name(name).write_bytes(b'{"some":"thing"}\n' * 400)
    report = log.verify()
    assert ("foreign_file", name, 0) in told(report)
    assert {finding.file for finding in report.findings} == {name}
    log.path.with_name(name).rename(log.path.with_name(name.replace("000000", "000009")))
    report = log.verify()
    assert [finding.kind for finding in report.findings] == ["inserted"]
    assert "lines 1 to 400 were never written here" in report.findings[0].message


def test_compressed_files_are_read_and_a_damaged_one_is_named(log: SealedLog) -> None:
    middle = log.files[1]
    packed = middle.with_name(middle.name + ".gz")
    packed.write_bytes(gzip.compress(middle.read_bytes()))
    middle.unlink()
    assert log.verify().good
    content = packed.read_bytes()
    packed.write_bytes(content[: len(content) // 2])
    report = log.verify()
    assert ("unreadable", middle.name) in {(kind, file) for kind, file, _ in told(report)}
    assert all(file == middle.name for _, file, _ in told(report))


def test_lines_behind_the_last_checkpoint_are_said_and_not_a_fault(log: SealedLog) -> None:
    with log.path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines(range(5_000, 5_007))))
    report = log.verify()
    assert report.good
    assert report.trees[0].unsealed == 7


# ---- the tree and its signature -----------------------------------------------------------------------------------


def test_a_rewritten_log_with_a_rewritten_tree_is_found_by_the_signature(log: SealedLog) -> None:
    def rewritten(kept: list[bytes]) -> list[bytes]:
        kept[20] = change(kept[20])
        return kept

    rewrite(log.files[0], rewritten)
    everything = [line for file in log.files for line in file.read_bytes().splitlines()]
    edge = Edge()
    edge.extend(b"".join(leaf_hash(line) for line in everything))
    folder = tree_directory(log.path) / "1"
    write_files(
        folder, {tile_path(tile): content for tile, content in {**edge.full, **edge.partial()}.items()}
    )
    report = log.verify()
    assert [finding.kind for finding in report.findings] == ["forged"]
    assert "records 0 to 99 were changed together with their hashes" in report.findings[0].message
    # ... and signing it with a key of one's own does not help.
    stranger = Signer(log.name, Ed25519PrivateKey.generate())
    note = Note.signed(Checkpoint(log.name, 900, edge.root()).text, [stranger])
    (folder / "checkpoint").write_bytes(str(note).encode())
    report = log.verify()
    assert "signature" in {finding.kind for finding in report.findings}
    assert "which no known key vouches for" in str(report.findings)


def test_a_damaged_or_missing_tile_is_named_and_good_lines_are_not_blamed(log: SealedLog) -> None:
    tile = tree_directory(log.path) / "1/tile/0/001"
    good = tile.read_bytes()
    tile.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    report = log.verify()
    assert told(report) == [("tile", "decisions.tree/1/tile/0/001", 0)]
    assert (report.trees[0].agreed, report.trees[0].unchecked) == (900 - 256, 256)
    tile.unlink()
    report = log.verify()
    assert told(report) == [("tile", "decisions.tree/1/tile/0/001", 0)]
    assert "is missing, of records 256 to 511" in report.findings[0].message
    tile.write_bytes(good)
    upper = tree_directory(log.path) / "1/tile/1/000.p/3"
    upper.write_bytes(bytes(96))
    assert told(log.verify()) == [("tile", "decisions.tree/1/tile/1/000.p/3", 0)]


def test_lowest_tiles_of_pruned_records_may_be_removed(log: SealedLog) -> None:
    for file in log.files[:2]:
        file.unlink()
    for tile in ("000", "001"):
        (tree_directory(log.path) / "1/tile/0" / tile).unlink()
    report = log.verify()
    assert report.good, report.findings
    assert report.trees[0].pruned == [(0, 599)]
    assert report.trees[0].agreed == 300
    (tree_directory(log.path) / "1/tile/0/002").unlink()
    assert told(log.verify()) == [("tile", "decisions.tree/1/tile/0/002", 0)]


def test_a_forked_log_is_found_by_a_checkpoint_of_before(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "var")
    log.write(400)
    log.settle()
    kept = log.checkpoint()
    whole = copied(tmp_path / "var", tmp_path / "kept")
    log.write(100)
    log.stop()
    ours = log.checkpoint()
    assert log.verify(older=[("kept", kept)]).good
    # The whole machine is put back, keys and all, and goes another way.
    copied(whole, tmp_path / "var")
    forked = SealedLog(tmp_path / "var", first=1_000)
    forked.write(3)
    forked.write(200)
    forked.stop()
    assert forked.verify().good, "nothing that is left on the machine knows better"
    report = forked.verify(older=[("ours", ours)])
    assert told(report) == [("forked", "ours", 0)]
    assert "the checkpoint at 500 records is not the beginning of the log that is there" in str(
        report.findings[0]
    )
    assert forked.verify(older=[("kept", kept)]).good


def test_a_log_that_was_put_back_with_its_tree_is_found_by_what_is_kept_beside_the_keys(
    tmp_path: Path,
) -> None:
    log = SealedLog(tmp_path / "var")
    log.write(50)
    log.settle()
    copied(tmp_path / "var/decisions.tree", tmp_path / "tree")
    content = log.path.read_bytes()
    log.write(50)
    log.stop()
    copied(tmp_path / "tree", tmp_path / "var/decisions.tree")
    log.path.write_bytes(content)
    report = log.verify()
    assert [finding.kind for finding in report.findings] == ["rolled_back"]
    assert "100 records were signed, and the tree has 50" in report.findings[0].message


def test_a_key_that_is_not_the_logs_verifies_nothing(log: SealedLog) -> None:
    stranger = Signer(log.name, Ed25519PrivateKey.generate()).verifier
    report = log.verify(given=[stranger], older=[])
    assert [finding.kind for finding in report.findings] == ["signature"]
    with pytest.raises(BadInputError, match="`kept`: the checkpoint is signed by"):
        log.verify(given=[stranger], older=[("kept", log.checkpoint())])
    with pytest.raises(BadInputError, match="`kept`: expected a signed note"):
        log.verify(older=[("kept", b"nothing")])
    assert log.verify(given=public_keys(log.keys, log.name)).good


def test_a_log_without_a_tree_can_not_be_verified(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "var")
    log.write(5)
    log.stop()
    copied(tree_directory(log.path), tmp_path / "elsewhere")
    for file in sorted(tree_directory(log.path).rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    with pytest.raises(LogError, match="has no tree"):
        log.verify()


# ---- any tampering at all -----------------------------------------------------------------------------------------

PLACES = st.integers(0, 599)


@st.composite
def tamperings(draw: st.DrawFn) -> tuple[str, int, int]:
    kind = draw(st.sampled_from(["change", "remove", "insert", "move", "copy", "cut"]))
    return kind, draw(PLACES), draw(PLACES)


def tampered(everything: list[bytes], kind: str, at: int, other: int) -> list[bytes]:
    done = list(everything)
    match kind:
        case "change":
            done[at] = change(done[at])
        case "remove":
            del done[at]
        case "insert":
            done.insert(at, b'{"v":1,"n":%d}' % -other)
        case "move":
            done.insert(other, done.pop(at))
        case "copy":
            done.insert(other, done[at])
        case "cut":
            del done[at:]
    return done


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> SealedLog:
    log = SealedLog(tmp_path_factory.mktemp("one") / "var")
    log.write(600)
    log.stop()
    return log


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(("copy", 599, 599))
@given(tamperings())
def test_any_tampering_is_found_and_named_at_its_line(
    one_file: SealedLog, tampering: tuple[str, int, int]
) -> None:
    kind, at, other = tampering
    good = one_file.path.read_bytes()
    everything = good.splitlines()
    done = tampered(everything, *tampering)
    try:
        one_file.path.write_bytes(b"".join(line + b"\n" for line in done))
        report = one_file.verify()
    finally:
        one_file.path.write_bytes(good)
    if done == everything:
        assert report.good
        return
    if (
        done[:-1] == everything
    ):  # what stands after the seal is not sealed yet, whatever it is: said, and no finding
        assert report.good
        assert report.trees[0].unsealed == 1
        return
    kinds = {"change": "changed", "remove": "removed", "insert": "inserted", "move": "moved", "cut": "truncated"}  # fmt: skip
    expected = "truncated" if kind == "remove" and at == 599 else kinds.get(kind)
    if kind == "copy":  # which of two is the copy may be seen either way
        assert {finding.kind for finding in report.findings} <= {"inserted", "moved"}
        assert {finding.line for finding in report.findings} <= {at + 1, at + 2, other + 1, other + 2}
        assert report.findings
        return
    (finding,) = report.findings
    assert finding.kind == expected
    line = {
        "change": at + 1,
        "remove": at,
        "insert": at + 1,
        "cut": at,
    }.get(kind)
    if line is not None:
        assert finding.line == line
    else:
        assert finding.line in (other + 1, at + 1)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(tamperings(), min_size=2, max_size=6))
def test_many_tamperings_at_once_are_found(one_file: SealedLog, several: list[tuple[str, int, int]]) -> None:
    good = one_file.path.read_bytes()
    everything = good.splitlines()
    done = everything
    for kind, at, other in several:
        if done:
            done = tampered(done, kind, at % len(done), other % len(done))
    try:
        one_file.path.write_bytes(b"".join(line + b"\n" for line in done))
        report = one_file.verify()
    finally:
        one_file.path.write_bytes(good)
    assert report.good == (done == everything or done[: len(everything)] == everything)
    assert report.trees[0].agreed <= sum(line in set(everything) for line in done)
