"""Signed notes and checkpoints in their public form (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), Ed25519 alone.

Others' tools read what is written here, and what is read here may come from anybody.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from signalwarden.decision_log.integrity.merkle import HASH_BYTES
from signalwarden.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_NOTE_BYTES", "Checkpoint", "Note", "Signature", "Signer", "Verifier", "decode64"]

ED25519: Final = b"\x01"
"""The type byte of Ed25519 signatures."""
MAX_NOTE_BYTES: Final = 1 << 20
"""As much as Go's golang.org/x/mod/sumdb/note reads."""
MAX_SIGNATURES: Final = 100
"""As there; the specification asks for 16 at least."""
DASH: Final = "\N{EM DASH} "
SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
KEY: Final = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")


def decode64(text: str) -> bytes:
    """Base64, and none that another text decodes to as well. Raises ValueError."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise ValueError("not canonical")
    return content


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _is_name(name: str) -> bool:
    return bool(name) and not any(c.isspace() or c == "+" for c in name)


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key and its name: `name+hash+key`, as `signalwarden log key` prints it."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Raises BadInputError."""
        parts = KEY.fullmatch(text.strip())
        try:
            key = decode64(parts[3]) if parts else b""
        except (binascii.Error, ValueError):
            key = b""
        if parts is None or key[:1] != ED25519 or len(key) != 1 + HASH_BYTES:
            raise BadInputError(
                f"`{text.strip()[:100]}` is not a verifier key, expected `name+hash+key` of an Ed25519 key as "
                "`signalwarden log key` prints it"
            )
        found = cls(parts[1], key[1:])
        if found.key_id.hex() != parts[2]:
            raise BadInputError(f"the verifier key of `{parts[1]}` is damaged: its hash is another")
        return found

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    @property
    def short(self) -> str:
        """For people: name and hash."""
        return f"{self.name}+{self.key_id.hex()}"

    def __str__(self) -> str:
        return f"{self.short}+{_encode(ED25519 + self.public)}"

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether this key signed that."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below a note's text."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{DASH}{self.name} {_encode(self.key_id + self.signature)}\n"


class Signer:
    """A private key and its name."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        if not _is_name(name):
            raise BadInputError(f"`{name}` is no name for a key: it has a space or a `+`")
        self._private = private
        self.verifier = Verifier(name, private.public_key().public_bytes_raw())

    def sign(self, text: str) -> Signature:
        """Of a note's text."""
        return Signature(self.verifier.name, self.verifier.key_id, self._private.sign(text.encode()))


@dataclass(frozen=True, slots=True)
class Note:
    """Text and signatures, none of them checked yet."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def signed(cls, text: str, signers: Iterable[Signer]) -> Note:
        """By each of these."""
        return cls(text, tuple(signer.sign(text) for signer in signers))

    @classmethod
    def parse(cls, content: bytes) -> Note:
        """Raises BadInputError."""
        try:
            whole = content.decode() if len(content) <= MAX_NOTE_BYTES else ""
        except UnicodeDecodeError:
            whole = ""
        text, blank, lines = whole.rpartition("\n\n")
        if (
            not blank
            or not lines.endswith("\n")
            or any(c < " " and c != "\n" for c in whole)
            or lines.count("\n") > MAX_SIGNATURES
        ):
            raise BadInputError("expected a signed note: text, an empty line, lines of signatures")
        return cls(text + "\n", tuple(_signature(line) for line in lines[:-1].split("\n")))

    def __str__(self) -> str:
        return self.text + "\n" + "".join(str(signature) for signature in self.signatures)

    def signed_by(self, verifiers: Iterable[Verifier]) -> list[Verifier]:
        """Those of these keys that signed it. A signature of one of them that is not good spoils the note: raises
        BadInputError."""
        known = {(key.name, key.key_id): key for key in verifiers}
        found = []
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is None or key in found:
                continue
            if not key.verifies(self.text.encode(), signature.signature):
                raise BadInputError(f"the signature of `{key.short}` is not good")
            found.append(key)
        return found


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    try:
        content = decode64(encoded)
    except (binascii.Error, ValueError):
        content = b""
    if not line.startswith(DASH) or not _is_name(name) or len(content) < 5:
        raise BadInputError("expected lines of signatures at the end of the note, each `— name base64`")
    return Signature(name, content[:4], content[4:])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a tree: whose, how many leaves, which root."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Of a note's text; further lines are others' extensions. Raises BadInputError."""
        origin, size, root, *extensions = text.split("\n") if text.count("\n") >= 3 else ["", "", "", ""]
        try:
            found = decode64(root)
        except (binascii.Error, ValueError):
            found = b""
        good = origin and SIZE.fullmatch(size) and len(found) == HASH_BYTES
        if not good or extensions[-1] or not all(extensions[:-1]):
            raise BadInputError(
                "expected a checkpoint: a line of its origin, of its size, of its root in base64"
            )
        return cls(origin, int(size), found)

    @property
    def text(self) -> str:
        """As it is signed."""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"
