"""`signalwarden log verify | prove | key`: what they print, their exit status, and one sentence for what is no use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from signalwarden import cli
from signalwarden.decision_log.integrity.proofs import Proof, prove
from signalwarden.errors import BadInputError
from tests.sealing import SealedLog, copied, rewrite

ABSENT = "01a1ee56-5e7b-774b-8000-00000000ffff"


@pytest.fixture
def log(minimal_directory: Path) -> SealedLog:
    log = SealedLog(minimal_directory / "var")
    log.write(20)
    log.stop()
    return log


def run(capfd: pytest.CaptureFixture[str], root: Path, *arguments: str, status: int = 0) -> str:
    assert cli._run(["log", *arguments, "--config", str(root)]) == status
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return (out + err) if status < 2 else err


def test_a_good_log_and_a_broken_one(
    log: SealedLog, minimal_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, minimal_directory, "verify")
    assert said.startswith(
        "signalwarden/prod.example/decisions: 20 records signed by signalwarden/prod.example/"
    )
    assert "good: 20 of 20 lines in 1 file are what was signed" in said
    rewrite(log.path, lambda kept: kept[1:])
    said = run(capfd, minimal_directory, "verify", status=1)
    assert "decisions.jsonl: removed: record 0 is missing" in said
    document = json.loads(run(capfd, minimal_directory, "verify", "--json", status=1))
    assert not document["good"]
    assert document["findings"][0]["record"] == 0
    assert document["lines_per_second"] > 0


def test_a_proof_is_made_and_checked(
    log: SealedLog, minimal_directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(log.path.read_bytes().splitlines()[7])["decision_id"]
    text = run(capfd, minimal_directory, "prove", record)
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    assert "\nindex 7\n" in text
    proof, key = tmp_path / "p", run(capfd, minimal_directory, "key").strip()
    proof.write_text(text)
    assert json.loads(run(capfd, minimal_directory, "key", "--json"))["key"] == key
    said = json.loads(run(capfd, tmp_path, "verify", "--proof", str(proof), "--key", key, "--json"))
    assert (said["good"], said["index"], said["size"]) == (True, 7, 20)
    assert json.loads(said["record"])["decision_id"] == record
    assert f"good: record 7 of 20 of {log.name}" in run(
        capfd, minimal_directory, "verify", "--proof", str(proof)
    )
    other = SealedLog(tmp_path / "other")
    other.stop()
    stranger = other.tree._keys.verifiers[0]
    said = run(capfd, tmp_path, "verify", "--proof", str(proof), "--key", str(stranger), "--json", status=1)
    assert "which no known key vouches for" in said


def test_a_copy_is_verified_by_whoever_has_the_key(
    log: SealedLog, minimal_directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "log.vkey"
    key.write_text(run(capfd, minimal_directory, "key"))
    copied(log.path.parent, tmp_path / "copy")
    copy = str(tmp_path / "copy/decisions.jsonl")
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    assert "good: 20 of 20" in run(capfd, nowhere, "verify", "--log", copy, "--key", str(key))
    assert "give it with --key" in run(capfd, nowhere, "verify", "--log", copy, status=2)
    (tmp_path / "empty").write_text("\n")
    assert "no verifier key in it" in run(
        capfd, nowhere, "verify", "--log", copy, "--key", str(tmp_path / "empty"), status=2
    )


def test_every_byte_of_a_proof_counts(log: SealedLog) -> None:
    record = json.loads(log.path.read_bytes().splitlines()[7])["decision_id"]
    good = prove(log.path, record).encode()
    trust = log.tree._keys.trust()
    assert Proof.parse(good).holds(trust)[0].size == 20
    assert Proof.parse(good).encode() == good
    for at in range(len(good)):
        with pytest.raises(BadInputError):
            Proof.parse(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]).holds(trust)
    for end in range(len(good)):
        with pytest.raises(BadInputError):
            Proof.parse(good[:end]).holds(trust)


def test_a_record_that_is_not_signed_yet_has_no_proof(log: SealedLog) -> None:
    line = b'{"v":1,"kind":"decision","decision_id":"%s"}' % ABSENT.encode()
    with log.path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(BadInputError, match="it was written since the last one"):
        prove(log.path, ABSENT)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prove", "7"], "`7` is not an id of a record"),
        (["prove", ABSENT], f"no record with the id `{ABSENT}` is in the files of"),
        (["verify", "--key", "a+b"], "`a+b` is not a verifier key, expected `name+hash+key`"),
        (["verify", "--key", "nowhere"], "`nowhere` can't be read: no such file or directory"),
        (["verify", "--checkpoint", "nowhere"], "`nowhere` can't be read: no such file or directory"),
        (["verify", "--proof", "nowhere"], "`nowhere` can't be read: no such file or directory"),
        (["verify", "--proof", "FOREIGN"], "expected a proof that begins with `c2sp.org/tlog-proof@v1`"),
        (["verify", "--checkpoint", "FOREIGN"], "expected a signed note"),
    ],
)
@pytest.mark.usefixtures("log")
def test_what_is_no_use_gets_one_sentence(
    minimal_directory: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOREIGN").write_bytes(b"\x00\xff\n\nsomething else")
    said = run(capfd, minimal_directory, *arguments, status=2)
    assert sentence in said
    assert said.count("\n") == 1


def test_without_a_key_or_a_tree_it_says_what_is_missing(
    minimal_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for verb in ("verify", "key"):
        assert "has no key of the log" in run(capfd, minimal_directory, verb, status=2)
    log = SealedLog(minimal_directory / "var")
    log.stop()
    said = run(capfd, minimal_directory, "verify", status=2)
    assert "has no tree" in said
