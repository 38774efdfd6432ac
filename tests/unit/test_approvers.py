"""`approvers` and `in_force`: a contract loads when those have signed it who must, over restarts and removals."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from signalwarden import approvers, config
from signalwarden.app import App
from signalwarden.approvers import REMOVED, Approver, extended, private_key, public_text, signed_text
from signalwarden.directory import Directory
from signalwarden.errors import BadInputError, ConfigurationError, StateError, sentence
from signalwarden.in_force import APPROVERS
from signalwarden.state import SqliteStore
from tests.serving import running

ALICE, BOB, EVE = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
IDS = {"alice": ALICE, "bob": BOB, "eve": EVE}
CONTRACT = """\
  open_hours:
    type: bool
    description: {description}
    owner: team-pages@prod.example
    purpose: Close pages at night
    subject: global
    sources: [{{kind: push, publisher: "spiffe://prod.example/clock", assurance: authoritative}}]
    max_age: 1h
    influence: grant
    used_by: [page.read]
    review_by: 2099-01-01
{approvers}"""
CLIENTS = """\
clients:
  - {id: "spiffe://prod.example/clock", may: [publish], token_sha256: "%s", expires: "2099-01-01T00:00:00Z"}
"""


def named(**people: Ed25519PrivateKey) -> str:
    return json.dumps(
        [{"id": f"{who}@prod.example", "ed25519": public_text(key)} for who, key in people.items()]
    )


def write(root: Path, approver_list: str = "", description: str = "Whether it is day") -> None:
    said = f"    approvers: {approver_list}\n" if approver_list else ""
    text = CONTRACT.format(approvers=said, description=description)
    (root / "signals.yaml").write_text("signals:\n" + text)


def remove(root: Path) -> None:
    (root / "signals.yaml").write_text("signals: {}\n")


def now() -> int:
    return time.time_ns() // 1000


def digest(root: Path) -> str:
    loaded = config.judge(Directory.read(root), now(), unapproved=True)
    (contract,) = loaded.described()["signals"]
    return str(contract["digest"])


def approve(root: Path, *who: str, over: str | None = None, keys: dict[str, Ed25519PrivateKey] = IDS) -> None:
    path = root / "approvals/open_hours.json"
    path.parent.mkdir(exist_ok=True)
    signed = over or digest(root)
    for name in who:
        content = path.read_bytes() if path.exists() else None
        path.write_bytes(
            extended(
                content, signal="open_hours", digest=signed, approver=f"{name}@prod.example", key=keys[name]
            )
        )


def codes(root: Path) -> list[str]:
    try:
        config.load(root, now())
    except ConfigurationError as error:
        return [finding.code for finding in error.findings if finding.severity == "error"]
    return []


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    with (minimal_directory / "signalwarden.yaml").open("a") as file:
        file.write("watch: false\n" + CLIENTS % ("0" * 64))
    return minimal_directory


# ---- what check and load say ------------------------------------------------------------------------------


def test_a_contract_loads_once_all_its_approvers_have_signed_it(root: Path) -> None:
    write(root, named(alice=ALICE, bob=BOB))
    assert codes(root) == ["approval_missing"] * 2
    approve(root, "alice")
    assert codes(root) == ["approval_missing"]
    approve(root, "bob")
    assert codes(root) == []
    write(root)
    assert codes(root) == []


def test_what_is_missing_names_the_line_the_approver_and_the_digest(root: Path) -> None:
    write(root, named(alice=ALICE))
    with pytest.raises(ConfigurationError) as caught:
        config.load(root, now())
    told = [sentence(finding) for finding in caught.value.findings if finding.severity == "error"]
    what = f"`open_hours`, whose digest is `{digest(root)}` in `approvals/open_hours.json`"
    assert told == [f"signals.yaml:2:1: error: expected `alice@prod.example` to have signed {what}"]


def test_a_change_of_the_contract_needs_new_signatures(root: Path) -> None:
    write(root, named(alice=ALICE))
    approve(root, "alice")
    old = digest(root)
    write(root, named(alice=ALICE), description="Whether it is night")
    with pytest.raises(ConfigurationError, match=f"is for the digest `{old}`"):
        config.load(root, now())
    approve(root, "alice")
    assert codes(root) == []


def test_the_place_of_a_contract_is_not_signed(root: Path) -> None:
    write(root, named(alice=ALICE))
    approve(root, "alice")
    (root / "signals.yaml").write_text("# moved\n\n" + (root / "signals.yaml").read_text())
    assert codes(root) == []


def document(**fields: Any) -> bytes:
    return json.dumps({"digest": "d", "signatures": {}, **fields}).encode()


def good(name: str = "open_hours", over: str = "d", key: Ed25519PrivateKey = ALICE) -> str:
    return base64.b64encode(key.sign(signed_text(name, over))).decode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is of another form"),
        (document(more=1), "is of another form"),
        (document(digest=1), "is of another form"),
        (document(signatures=[]), "is of another form"),
        (document(signatures={"alice@prod.example": "?"}), "not base64"),
        (document(signatures={"alice@prod.example": 7}), "not base64"),
        (document(signatures={"alice@prod.example": ["AA=="] * 5}), "more than 4 signatures"),
        (document(signatures={"alice@prod.example": "AA=="}), "is not good for `open_hours`"),
        (document(signatures={"alice@prod.example": good(key=EVE)}), "is not good for `open_hours`"),
        (document(signatures={"alice@prod.example": good("other")}), "is not good for `open_hours`"),
        (document(signatures={"alice@prod.example": good(over="e")}), "is not good for `open_hours`"),
        (
            document(signatures={"eve@prod.example": good(key=EVE)}),
            "expected `alice@prod.example` to have signed",
        ),
        (document(signatures={"alice@prod.example": []}), "expected `alice@prod.example` to have signed"),
        (b" " * (approvers.MAX_FILE_BYTES + 1), "has more than 65536 bytes"),
    ],
)
def test_what_is_no_signature_of_the_approver_is_found(content: bytes, said: str) -> None:
    contract = {
        "name": "open_hours", "digest": "d", "line": 2,
        "approvers": [{"id": "alice@prod.example", "ed25519": public_text(ALICE)}],
    }  # fmt: skip
    (found,) = approvers.findings([contract], {"open_hours": content})
    assert said in found.message
    assert found.code in ("approval_missing", "approval_invalid")
    (kept,) = [document(signatures={"alice@prod.example": good()})]
    assert approvers.findings([contract], {"open_hours": kept}) == []


def test_a_file_for_a_contract_that_nobody_approves_is_not_read(root: Path) -> None:
    write(root)
    (root / "approvals").mkdir()
    (root / "approvals/open_hours.json").write_text("half a thou")
    (root / "approvals/README.md").write_text("who is who")
    assert codes(root) == []


def test_a_change_of_an_approval_alone_is_a_change_of_the_directory_and_none_of_the_revision(
    root: Path,
) -> None:
    write(root, named(alice=ALICE))
    approve(root, "alice")
    one, seen = config.load(root, now()), Directory.glance(root)
    path = root / "approvals/open_hours.json"
    path.write_text(path.read_text() + "\n")
    other = config.load(root, now())
    assert one.digest != other.digest
    assert Directory.glance(root) != seen
    assert one.configuration.revision == other.configuration.revision


# ---- what is in force must agree --------------------------------------------------------------------------


def refused(app: App) -> str:
    with pytest.raises(ConfigurationError) as caught:
        app.reload("test")
    return str(caught.value)


@pytest.fixture
def approved(root: Path) -> Path:
    write(root, named(alice=ALICE))
    approve(root, "alice")
    return root


def test_another_approver_needs_the_old_one_and_the_new_one(approved: Path) -> None:
    with running(approved) as app:
        before = app.readiness().detail["revision"]
        write(approved, named(eve=EVE))
        approve(approved, "eve")
        assert "expected `alice@prod.example`, who approves what was in force before," in refused(app)
        assert app.readiness().detail["revision"] == before
        approve(approved, "alice")
        assert app.reload("test") != before
        write(approved, named(eve=EVE), description="Whether it is night")
        approve(approved, "eve")
        app.reload("test")


def test_no_approver_needs_the_old_one(approved: Path) -> None:
    with running(approved) as app:
        write(approved)
        refused(app)
        approve(approved, "alice")
        app.reload("test")
        write(approved, description="Whether it is night")
        app.reload("test")


def test_a_contract_is_removed_with_its_approvers_or_not_at_all(approved: Path) -> None:
    with running(approved) as app:
        remove(approved)
        assert "to have signed the removal of `open_hours`" in refused(app)
        approve(approved, "eve", over=REMOVED)
        refused(app)
        approve(approved, "alice", over=REMOVED)
        app.reload("test")
        (approved / "approvals/open_hours.json").unlink()
        app.reload("test")


def test_a_restart_is_no_way_around_approvers(approved: Path) -> None:
    with running(approved):
        pass
    write(approved)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="who approves what was in force before"):
            App(approved).start()
    remove(approved)
    with pytest.raises(ConfigurationError, match="the removal of"):
        App(approved).start()
    approve(approved, "alice", over=REMOVED)
    with running(approved):
        pass
    (approved / "approvals/open_hours.json").unlink()
    with running(approved):
        pass


def test_an_approver_may_change_the_key_with_both(approved: Path) -> None:
    with running(approved) as app:
        write(approved, named(alice=BOB))
        approve(approved, "alice", keys={"alice": BOB})
        refused(app)
        approve(approved, "alice")
        content = json.loads((approved / "approvals/open_hours.json").read_text())
        assert len(content["signatures"]["alice@prod.example"]) == 2
        app.reload("test")


def test_approvers_that_cannot_be_remembered_do_not_come_into_force(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root)
    with running(root) as app:
        before = app.readiness().detail["revision"]
        write(root, named(alice=ALICE))
        approve(root, "alice")

        def keep(_self: SqliteStore, _key: str, _value: bytes) -> None:
            raise StateError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "keep", keep)
            with pytest.raises(StateError, match="the disk is full"):
                app.reload("test")
        assert app.readiness().detail["revision"] == before
        assert b"signalwarden_state_failures_total 1.0" in app.metrics_text()[0]
        assert app.reload("test") != before


def test_approvers_that_cannot_be_read_back_stop_the_start(approved: Path) -> None:
    with running(approved):
        pass
    with SqliteStore(approved / "var/state.db") as store:
        store.keep(APPROVERS, b'{"open_hours": 7}')
    with pytest.raises(StateError, match="approvers that can't be read"):
        App(approved).start()


# ---- the record of a start --------------------------------------------------------------------------------


def loads(root: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (root / "var/decisions.jsonl").read_bytes().splitlines()]
    return [record for record in found if record.get("change") == "configuration_loaded"]


def test_a_start_says_in_words_what_changed_while_the_server_was_down(root: Path) -> None:
    write(root)
    with running(root):
        pass
    (root / "policies/more.cedar").write_text('@id("more")\npermit (principal, action, resource);\n')
    with running(root):
        pass
    first, second = loads(root)
    assert (first["previous"], first["difference"], first["words"]) == (None, None, [])
    assert second["previous"] == first["revision"]
    assert second["difference"]["policies"]["added"] == ["more"]
    (word,) = second["words"]
    assert word == {
        "part": "policy", "name": "more", "direction": "widens",
        "sentence": "`more` is new and allows what it permits",
    }  # fmt: skip


def test_another_release_or_a_spoiled_memory_does_not_stop_the_start(root: Path) -> None:
    write(root)
    with running(root):
        pass
    with SqliteStore(root / "var/state.db") as store:
        store.keep("declared", b"spoiled")
    with running(root):
        pass
    assert loads(root)[1]["previous"] is None


def test_words_in_a_record_are_bounded_and_the_rest_is_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signalwarden.difference.MAX_WORDS", 3)
    write(root)
    with running(root) as app:
        policies = "".join(f'@id("p{n}")\npermit (principal, action, resource);\n' for n in range(5))
        (root / "policies/more.cedar").write_text(policies)
        app.reload("test")
    assert len(loads(root)[1]["words"]) == 3
    assert loads(root)[1]["words_left_out"] == 2


# ---- signing ----------------------------------------------------------------------------------------------


def pem(key: Any, encryption: Any = None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))


def test_keys_of_other_kinds_are_refused_without_being_repeated() -> None:
    assert public_text(private_key(pem(ALICE), "alice.pem")) == public_text(ALICE)
    curve = generate_private_key(SECP256R1())
    for content in (b"secret words", pem(curve), pem(ALICE, BestAvailableEncryption(b"x"))):
        with pytest.raises(BadInputError, match=r"`alice\.pem` is (not|a key)") as caught:
            private_key(content, "alice.pem")
        assert "secret" not in str(caught.value)


def test_a_signature_over_another_digest_is_dropped_and_the_same_is_not_written_twice() -> None:
    once = extended(None, signal="s", digest="a", approver="x", key=ALICE)
    assert extended(once, signal="s", digest="a", approver="x", key=ALICE) == once
    both = json.loads(extended(once, signal="s", digest="a", approver="y", key=BOB))
    assert set(both["signatures"]) == {"x", "y"}
    other = json.loads(extended(once, signal="s", digest="b", approver="y", key=BOB))
    assert (other["digest"], set(other["signatures"])) == ("b", {"y"})
    assert Approver("x", public_text(ALICE)) == Approver("x", public_text(ALICE))


def cli(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "signalwarden.cli", *arguments, "--config", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_an_approver_signs_from_the_command_line(root: Path, tmp_path: Path) -> None:
    key = tmp_path / "alice.pem"
    key.write_bytes(pem(ALICE))
    write(root, named(alice=ALICE))
    arguments = ("signals", "approve", "open_hours", "--key", str(key), "--as")
    ran = cli(root, *arguments, "alice@prod.example")
    assert ran.returncode == 0, ran.stderr
    assert digest(root) in ran.stdout
    assert codes(root) == []
    remove(root)
    ran = cli(root, *arguments, "alice@prod.example", "--removal")
    assert ran.returncode == 0, ran.stderr
    assert json.loads((root / "approvals/open_hours.json").read_text())["digest"] == REMOVED


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("open_hour", "--key", "{key}", "--as", "alice@prod.example"),
            "no signal is named `open_hour`, did you mean",
        ),
        (("open_hours", "--key", "{key}.no", "--as", "alice@prod.example"), "can't be read"),
        (("../x", "--removal", "--key", "{key}", "--as", "alice@prod.example"), "is not a name of a signal"),
        (("open_hours", "--key", "{key}", "--as", "eve@prod.example"), "did not name `eve@prod.example`"),
    ],
)
def test_what_can_not_be_approved_is_one_sentence(
    root: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    key = tmp_path / "alice.pem"
    key.write_bytes(pem(ALICE))
    write(root, named(alice=ALICE))
    ran = cli(root, "signals", "approve", *(argument.format(key=key) for argument in arguments))
    if "eve@prod.example" in arguments:
        assert ran.returncode == 0  # she may be an approver of what is in force
        assert "the contract does not name `eve@prod.example`" in ran.stdout + ran.stderr
        return
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (root / "approvals").exists()
