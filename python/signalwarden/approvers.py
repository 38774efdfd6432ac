"""Approvers: whose signatures a contract needs before it loads, and whether they are there.

A contract names its approvers; each signs its digest. To change or remove approvers, or the contract itself, those of
the revision in force must sign as well: `in_force.py` remembers them. Signatures stand in `approvals/SIGNAL.json`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from signalwarden.errors import BadInputError, Problem

__all__ = [
    "REMOVED",
    "Approver",
    "approvers_of",
    "extended",
    "findings",
    "private_key",
    "public_text",
    "signed_text",
]

PREFIX: Final = "signalwarden-contract-v1"
"""First line of what is signed: a signature over it is good for nothing else."""
REMOVED: Final = "removed"
"""Stands in for the digest where the contract is taken out of the register."""
MAX_FILE_BYTES: Final = 64 * 1024
"""Two hundred approvers and more; larger is not what it claims to be."""
MAX_SIGNATURES: Final = 4
"""Of one approver over one digest: one each for the old key and the new one while it changes, and some to spare."""
REGISTER: Final = "signals.yaml"


@dataclass(frozen=True, slots=True, order=True)
class Approver:
    """One who must sign."""

    id: str
    """An address."""
    ed25519: str
    """Public key, base64 of 32 bytes."""


def signed_text(signal: str, digest: str) -> bytes:
    """What an approver signs: three lines, without an end of line after the last."""
    return "\n".join((PREFIX, signal, digest)).encode()


def approvers_of(contract: Mapping[str, Any]) -> tuple[Approver, ...]:
    """Those that a described contract names."""
    return tuple(Approver(entry["id"], entry["ed25519"]) for entry in contract.get("approvers") or ())


# ---- what a load finds ------------------------------------------------------------------------------------


def findings(
    signals: Iterable[Mapping[str, Any]],
    approvals: Mapping[str, bytes],
    in_force: Mapping[str, tuple[Approver, ...]] | None = None,
) -> list[Problem]:
    """Every signature that is missing or wrong. `signals` are contracts as `describe` gives them, `approvals` the
    files by signal, `in_force` the approvers of the revision that these contracts are to follow."""
    contracts = {contract["name"]: contract for contract in signals}
    before = in_force or {}
    governed = {name for name, contract in contracts.items() if contract.get("approvers")} | before.keys()
    found: list[Problem] = []
    for name in sorted(governed):
        contract = contracts.get(name)
        own = approvers_of(contract) if contract else ()
        digest = contract["digest"] if contract else REMOVED
        others = [approver for approver in before.get(name, ()) if approver not in own]
        line = contract["line"] if contract else 0
        for code, message in _judged(name, digest, own, others, approvals.get(name)):
            found.append(Problem("error", REGISTER, line, 1 if line else 0, code, message))
    return found


def _judged(
    name: str, digest: str, own: Iterable[Approver], others: Iterable[Approver], content: bytes | None
) -> Iterator[tuple[str, str]]:
    """Code and sentence for each approver whose signature is not there, or not good."""
    file = f"approvals/{name}.json"
    try:
        signed_digest, signatures = (None, {}) if content is None else _parsed(content)
    except BadInputError as error:
        yield "approval_invalid", f"`{file}` {error}"
        return
    for approver, why in [
        *((a, "") for a in own),
        *((a, ", who approves what was in force before,") for a in others),
    ]:
        what = f"the removal of `{name}`" if digest == REMOVED else f"`{name}`, whose digest is `{digest}`"
        mine = signatures.get(approver.id, ())
        if signed_digest != digest or not mine:
            stale = content is not None and signed_digest != digest
            hint = f": `{file}` is for the digest `{signed_digest}`" if stale else f" in `{file}`"
            yield "approval_missing", f"expected `{approver.id}`{why} to have signed {what}{hint}"
        elif not any(_good(approver, signature, name, digest) for signature in mine):
            yield (
                "approval_invalid",
                f"the signature of `{approver.id}`{why} in `{file}` is not good for {what}",
            )


def _good(approver: Approver, signature: bytes, name: str, digest: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(approver.ed25519, validate=True))
        key.verify(signature, signed_text(name, digest))
    except (InvalidSignature, ValueError):
        return False
    return True


def _parsed(content: bytes) -> tuple[str, dict[str, tuple[bytes, ...]]]:
    """Digest and signatures of a file. Raises BadInputError with the end of a sentence."""
    if len(content) > MAX_FILE_BYTES:
        raise BadInputError(f"has more than {MAX_FILE_BYTES} bytes")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadInputError(f"is not JSON: {error}") from error
    shape = 'expected `{"digest": "<hex>", "signatures": {"<approver>": "<base64>"}}`'
    if not isinstance(document, dict) or document.keys() != {"digest", "signatures"}:
        raise BadInputError(f"is of another form: {shape}")
    digest, signatures = document["digest"], document["signatures"]
    if not isinstance(digest, str) or not isinstance(signatures, dict):
        raise BadInputError(f"is of another form: {shape}")
    return digest, {approver: _bytes(approver, told) for approver, told in signatures.items()}


def _bytes(approver: str, told: object) -> tuple[bytes, ...]:
    texts: list[Any] = told if isinstance(told, list) else [told]
    if len(texts) > MAX_SIGNATURES:
        raise BadInputError(f"holds more than {MAX_SIGNATURES} signatures of `{approver}`")
    try:
        return tuple(base64.b64decode(text, validate=True) for text in texts)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadInputError(f"holds a signature of `{approver}` that is not base64") from error


# ---- signing ----------------------------------------------------------------------------------------------


def private_key(pem: bytes, name: str) -> Ed25519PrivateKey:
    """The key of a PEM file. Raises BadInputError; nothing of the file is repeated."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInputError(f"`{name}` is not a private key in PEM form, without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInputError(
            f"`{name}` is a key of another kind, expected Ed25519 (`openssl genpkey -algorithm ed25519`)"
        )
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half, as a contract names it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def extended(
    content: bytes | None, *, signal: str, digest: str, approver: str, key: Ed25519PrivateKey
) -> bytes:
    """The approvals file with one more signature. Signatures over another digest are dropped: they are good for
    nothing any more. A signature of the same approver with another key stays beside the new one."""
    kept: dict[str, tuple[bytes, ...]] = {}
    if content is not None:
        old_digest, signatures = _parsed(content)
        kept = signatures if old_digest == digest else {}
    fresh = key.sign(signed_text(signal, digest))
    mine = [*(signature for signature in kept.get(approver, ()) if signature != fresh), fresh][
        -MAX_SIGNATURES:
    ]
    texts = {
        id_: [base64.b64encode(signature).decode() for signature in signatures]
        for id_, signatures in sorted({**kept, approver: tuple(mine)}.items())
    }
    told = {id_: found[0] if len(found) == 1 else found for id_, found in texts.items()}
    document = {"digest": digest, "signatures": told}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
