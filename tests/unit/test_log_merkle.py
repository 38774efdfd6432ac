"""Merkle trees, tiles and signed notes: the published vectors, and every proof at every size."""

from __future__ import annotations

import base64
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from signalwarden.decision_log.integrity import merkle
from signalwarden.decision_log.integrity.edge import Edge
from signalwarden.decision_log.integrity.notes import Checkpoint, Note, Signer, Verifier
from signalwarden.decision_log.integrity.tiles import TileError, Tiles, split, tile_path, write_files
from signalwarden.errors import BadInputError

# ---- RFC 6962: the leaves, roots and proofs that certificate-transparency's own tests use ---------------------

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): ["96a296d2", "5f083f0a", "6b47aaf2"],
    (5, 8): ["bc1a0643", "ca854ea1", "d37ee418"],
    (2, 3): ["fac54203"],
    (1, 5): ["6e340b9c", "5f083f0a", "bc1a0643"],
}
"""Beginnings of the hashes: what they lead to is checked whole."""
CONSISTENCY = {
    (1, 8): ["96a296d2", "5f083f0a", "6b47aaf2"],
    (6, 8): ["0ebc5d34", "ca854ea1", "d37ee418"],
    (2, 5): ["5f083f0a", "bc1a0643"],
    (6, 7): ["0ebc5d34", "b08693ec", "d37ee418"],
}


def nodes(entries: list[bytes]) -> merkle.Node:
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    return lambda level, index: merkle.fold(hashes[index << level : (index + 1) << level])


def plain_root(entries: list[bytes]) -> bytes:
    """As RFC 6962 section 2.1 writes it."""
    if len(entries) < 2:
        return merkle.leaf_hash(entries[0]) if entries else sha256(b"").digest()
    half = 1
    while 2 * half < len(entries):
        half *= 2
    return merkle.node_hash(plain_root(entries[:half]), plain_root(entries[half:]))


def test_roots_are_those_of_rfc_6962() -> None:
    assert merkle.root_of(0, nodes([])) == merkle.EMPTY_ROOT
    for size in range(1, 9):
        root = merkle.root_of(size, nodes(LEAVES))
        assert root.hex() == ROOTS[size - 1] == plain_root(LEAVES[:size]).hex()


def test_proofs_are_those_of_rfc_6962() -> None:
    for (index, size), expected in INCLUSION.items():
        assert [h.hex()[:8] for h in merkle.inclusion(index, size, nodes(LEAVES))] == expected
    for (old, new), expected in CONSISTENCY.items():
        assert [h.hex()[:8] for h in merkle.consistency(old, new, nodes(LEAVES))] == expected


def entries_of(size: int) -> list[bytes]:
    return [b"entry %d" % n for n in range(size)]


@given(st.integers(1, 700), st.data())
def test_a_proof_of_inclusion_holds_for_its_leaf_alone(size: int, data: st.DataObject) -> None:
    node = nodes(entries_of(size))
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion(index, size, node)
    leaf = merkle.leaf_hash(b"entry %d" % index)
    root = merkle.root_of(size, node)
    assert merkle.root_by_inclusion(index, size, leaf, path) == root
    wrong = [
        (index ^ 1, size, leaf, path),
        (index, size, merkle.leaf_hash(b"other"), path),
        (index, size, leaf, [*path, root]),
        (index, 2 * size + 2, leaf, path),
        *([(index, size, leaf, path[:-1]), (index, size, leaf, [root, *path[1:]])] if path else []),
    ]
    assert all(merkle.root_by_inclusion(*proof) != root for proof in wrong)


@given(st.integers(0, 700), st.data())
def test_a_proof_of_consistency_holds_for_its_trees_alone(new: int, data: st.DataObject) -> None:
    node = nodes(entries_of(new))
    old = data.draw(st.integers(0, new))
    path = merkle.consistency(old, new, node)
    roots = merkle.root_of(old, node), merkle.root_of(new, node)
    assert merkle.is_consistent(old, new, *roots, path)
    assert not merkle.is_consistent(old, new, *roots, [*path, roots[1]])
    if 0 < old < new:
        assert not merkle.is_consistent(old, new, merkle.EMPTY_ROOT, roots[1], path)
        assert not merkle.is_consistent(old, new, roots[0], merkle.EMPTY_ROOT, path)
        assert not merkle.is_consistent(old, new, *roots, path[:-1])
        assert not merkle.is_consistent(new, old, *roots, path)


def test_what_is_no_proof_is_refused() -> None:
    assert merkle.root_by_inclusion(0, 0, merkle.EMPTY_ROOT, []) is None
    assert merkle.root_by_inclusion(1, 1, merkle.EMPTY_ROOT, []) is None
    assert not merkle.is_consistent(1, 2, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])
    assert not merkle.is_consistent(3, 4, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])
    with pytest.raises(ValueError, match="not in a tree of 3"):
        merkle.inclusion(3, 3, nodes(LEAVES))
    with pytest.raises(ValueError, match="not the beginning"):
        merkle.consistency(4, 3, nodes(LEAVES))


# ---- tiles -------------------------------------------------------------------------------------------------------


def test_tiles_are_named_as_the_specification_says() -> None:
    assert tile_path((0, 0, 256)) == "tile/0/000"
    assert tile_path((0, 1234067, 256)) == "tile/0/x001/x234/067"
    assert tile_path((1, 1000, 17)) == "tile/1/x001/000.p/17"


def test_a_tree_of_70_000_has_the_tiles_that_the_specification_lists() -> None:
    edge = Edge()
    edge.extend(b"".join(merkle.leaf_hash(b"%d" % n) for n in range(70_000)))
    full = sorted(
        {level: max(n for row, n, _ in edge.full if row == level) + 1 for level, *_ in edge.full}.items()
    )
    assert full == [(0, 273), (1, 1)]
    assert sorted(edge.partial()) == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 66_000), min_size=1, max_size=4).map(sorted))
def test_a_tree_on_disk_has_the_roots_of_rfc_6962_at_every_size(
    sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    entries = entries_of(sizes[-1])
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    edge = Edge()
    for size in sizes:
        edge = Edge.of(Tiles(folder, edge.size))  # as after a restart
        edge.extend(b"".join(hashes[edge.size : size]))
        write_files(folder, {tile_path(t): content for t, content in {**edge.full, **edge.partial()}.items()})
        tiles = Tiles(folder, size)
        assert edge.root() == tiles.root() == merkle.fold(hashes[:size])
        assert all(tiles.root(old) == merkle.fold(hashes[:old]) for old in sizes if old <= size)
    if size:
        assert tiles.leaves(size // 3, size) == b"".join(hashes[size // 3 : size])
        assert tiles.find(hashes[size // 2]) == size // 2
        assert tiles.find(hashes[0], 1) is None


def test_a_tile_that_is_missing_or_cut_is_named(tmp_path: Path) -> None:
    edge = Edge()
    edge.extend(b"".join(merkle.leaf_hash(b"%d" % n) for n in range(300)))
    write_files(tmp_path, {tile_path(t): content for t, content in {**edge.full, **edge.partial()}.items()})
    assert (tmp_path / "tile/0/000").stat().st_mode & 0o777 == 0o600
    (tmp_path / "tile/0/000").write_bytes(b"short")
    with pytest.raises(TileError, match="tile/0/000` is damaged") as caught:
        Tiles(tmp_path, 300).leaf(0)
    assert (caught.value.start, caught.value.end) == (0, 256)
    (tmp_path / "tile/0/001.p/44").unlink()
    with pytest.raises(TileError, match=r"tile/0/001\.p/44` is missing") as caught:
        Tiles(tmp_path, 300).root()
    assert (caught.value.start, caught.value.end) == (256, 300)


def test_without_the_lowest_tiles_the_root_is_still_known(tmp_path: Path) -> None:
    edge = Edge()
    edge.extend(b"".join(merkle.leaf_hash(b"%d" % n) for n in range(1_000)))
    write_files(tmp_path, {tile_path(t): content for t, content in {**edge.full, **edge.partial()}.items()})
    (tmp_path / "tile/0/000").unlink()
    tiles = Tiles(tmp_path, 1_000)
    assert tiles.root() == edge.root()
    assert merkle.inclusion(700, 1_000, tiles.node)


# ---- notes: the vectors of golang.org/x/mod/sumdb/note and of c2sp.org/signed-note ------------------------------

VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SKEY = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
ENOCH_LINE = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"


def peter() -> Signer:
    seed = base64.b64decode(SKEY)[1:]
    return Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed))


def test_a_note_is_signed_as_go_signs_it() -> None:
    assert str(peter().verifier) == VKEY
    assert str(Note.signed(TEXT, [peter()])) == f"{TEXT}\n{PETER_LINE}"


def test_a_note_is_opened_as_go_opens_it() -> None:
    both = [Verifier.parse(VKEY), Verifier.parse(ENOCH)]
    note = Note.parse(f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode())
    assert note.text == TEXT
    assert note.signed_by(both) == both
    assert note.signed_by(both[:1]) == both[:1]
    assert note.signed_by([]) == []
    assert note.signed_by(reversed(both)) == both


def test_a_bad_signature_of_a_known_key_spoils_the_note() -> None:
    note = Note.parse(f"{TEXT}!\n\n{PETER_LINE}{ENOCH_LINE}".encode())
    with pytest.raises(BadInputError, match="`PeterNeumann"):
        note.signed_by([Verifier.parse(VKEY)])
    assert note.signed_by([]) == []


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}\n{PETER_LINE[:-1]}",
        f"\x01{TEXT}\n{PETER_LINE}",
        f"{TEXT}\n{PETER_LINE}Unexpected line.\n",
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Bad Name')}",
        f"{TEXT}\n{PETER_LINE * 101}",
        f"{TEXT}\n— PeterNeumann x08g\n",
        "",
    ],
)
def test_what_is_no_note_is_refused(content: str) -> None:
    with pytest.raises(BadInputError, match=r"signed note|lines of signatures"):
        Note.parse(content.encode())
    with pytest.raises(BadInputError):
        Note.parse(b"\xff" + content.encode())


def test_every_part_of_a_verifier_key_is_checked() -> None:
    for start in range(len(VKEY)):
        for end in range(start + 1, len(VKEY) + 1):
            if (start, end) != (0, len(VKEY)):
                with pytest.raises(BadInputError):
                    Verifier.parse(VKEY[start:end])
    for bad in (
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ):
        with pytest.raises(BadInputError):
            Verifier.parse(bad)


def test_a_checkpoint_is_as_the_specification_shows_it() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.size, checkpoint.text) == (
        "example.com/behind-the-sofa",
        20852163,
        text,
    )
    assert Checkpoint.parse(text + "an extension\n") == checkpoint


@pytest.mark.parametrize(
    "text",
    ["", "a\n", "a\n1\n", "a\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n", "a\n1\nAAAA\n",
     "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n", "a\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
     "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=", "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\nx\n"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="expected a checkpoint"):
        Checkpoint.parse(text)


def test_hashes_that_stand_together_come_apart() -> None:
    assert split(b"a" * 32 + b"b" * 32) == [b"a" * 32, b"b" * 32]
