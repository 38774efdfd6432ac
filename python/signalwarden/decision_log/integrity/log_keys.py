"""The keys that sign checkpoints: apart from the log, changed by themselves, each vouched for by the one before it.

Anybody can add a line to a signed note, so two signatures below one checkpoint vouch for nothing. What one key says of
the next is a text of its own that names both: a handover, signed by both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeGuard
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from signalwarden.decision_log.integrity.notes import MAX_NOTE_BYTES, Checkpoint, Note, Signer, Verifier
from signalwarden.decision_log.integrity.tiles import write_files
from signalwarden.errors import BadInputError, KeysError
from signalwarden.files import make_private_directory, read_regular, why
from signalwarden.keys import make_private_key, private_key_path, private_keys, read_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["Handover", "LogKeys", "Trust", "epoch_of", "handovers_of", "log_name", "public_keys", "read_last"]

_log = logging.getLogger("signalwarden.decision_log")

ROTATE_US: Final = 30 * 86_400_000_000
"""A key signs for a month. Whoever steals it can't sign for the months before: that key is gone."""
MAX_KEYS: Final = 8
"""Files that are read: one signs; a second one is there for a moment while it hands over."""
HANDOVER: Final = "signalwarden log key handover v1"
"""First line of such a text. It is no origin of ours, so it can't be taken for a checkpoint."""
HANDOVERS: Final = "keys"
"""Where handovers lie in the directory of the tree: whoever verifies needs them."""


def log_name(trust_domain: str, path: Path) -> str:
    """The name of a log: of its keys, and the origin of its first tree."""
    return f"signalwarden/{trust_domain}/{quote(path.stem, safe='')}"


def epoch_of(name: str, origin: str) -> int | None:
    """Which tree of a log an origin names: the first has the log's name, later ones their number behind it."""
    if origin == name:
        return 1
    number = origin.removeprefix(f"{name}/")
    return int(number) if number.isascii() and number.isdigit() and number[0] != "0" else None


@dataclass(frozen=True, slots=True)
class Handover:
    """From `old` to `new` at this state of the tree: what `old` signs of a larger tree does not count."""

    checkpoint: Checkpoint
    old: Verifier
    new: Verifier

    @property
    def text(self) -> str:
        """As both sign it."""
        return f"{HANDOVER}\n{self.checkpoint.text}{self.old}\n{self.new}\n"

    @classmethod
    def parse(cls, content: bytes) -> Handover:
        """Raises BadInputError, also if one of the two has not signed."""
        note = Note.parse(content)
        head, *lines = note.text.split("\n")
        if head != HANDOVER or len(lines) != 6:
            raise BadInputError("expected the handover of a log's key")
        checkpoint = Checkpoint.parse("\n".join(lines[:3]) + "\n")
        found = cls(checkpoint, Verifier.parse(lines[3]), Verifier.parse(lines[4]))
        if len(note.signed_by([found.old, found.new])) != 2:
            raise BadInputError("the handover of a log's key is not signed by both keys")
        return found


def handovers_of(tree: Path) -> tuple[list[Handover], list[str]]:
    """Of a log, oldest first; and in words, what is none and does not count."""
    found, bad = [], []
    try:
        paths = sorted((tree / HANDOVERS).glob("*.note"), key=lambda path: (len(path.name), path.name))
    except OSError:
        paths = []
    for path in paths:
        try:
            found.append(Handover.parse(read_regular(path, MAX_NOTE_BYTES)))
        except OSError as error:
            bad.append(f"`{path}` can't be read: {why(error)}")
        except BadInputError as error:
            bad.append(f"`{path}`: {error}")
    return found, bad


class Trust:
    """Whose signature counts, for how much of a log: the given keys, and those that handovers tie to them."""

    def __init__(self, name: str, given: Iterable[Verifier], handovers: Iterable[Handover]) -> None:
        self._name = name
        self._until: dict[Verifier, tuple[int, int] | None] = dict.fromkeys(given)
        waiting = list(handovers)
        while tied := [h for h in waiting if h.old in self._until or h.new in self._until]:
            for handover in tied:
                waiting.remove(handover)
                self._until.setdefault(handover.new)
                self._until[handover.old] = (
                    epoch_of(name, handover.checkpoint.origin) or 0,
                    handover.checkpoint.size,
                )

    def opened(self, content: bytes) -> tuple[Checkpoint, Verifier]:
        """A checkpoint that counts, and by whom. Raises BadInputError."""
        note = Note.parse(content)
        checkpoint = Checkpoint.parse(note.text)
        epoch = epoch_of(self._name, checkpoint.origin)
        if epoch is None:
            raise BadInputError(f"the checkpoint is of `{checkpoint.origin}`, expected one of `{self._name}`")
        signed_by = note.signed_by(self._until)
        for key in signed_by:
            until = self._until[key]
            if until is None or (epoch, checkpoint.size) <= until:
                return checkpoint, key
        if signed_by:
            raise BadInputError(f"the key `{signed_by[0].short}` had been handed over when it signed this")
        names = ", ".join(f"`{s.name}+{s.key_id.hex()}`" for s in note.signatures)
        raise BadInputError(f"the checkpoint is signed by {names}, which no known key vouches for")


# ---------------------------------------------------------------- of the server


@dataclass(frozen=True, slots=True)
class _Key:
    made_us: int
    signer: Signer

    def __repr__(self) -> str:
        return f"_Key({self.signer.verifier.short})"


def _load(directory: Path, name: str) -> list[_Key]:
    """Newest first. Raises KeysError."""
    found = private_keys(directory, "Ed25519", _is_one, most=MAX_KEYS)
    return [_Key(made_us, Signer(name, private)) for made_us, private in found]


def _is_one(private: object) -> TypeGuard[Ed25519PrivateKey]:
    return isinstance(private, Ed25519PrivateKey)


def public_keys(directory: Path, name: str) -> list[Verifier]:
    """Of a log, the one that signs first; none before its server has run. Raises KeysError."""
    return [key.signer.verifier for key in _load(directory, name)]


def _last_path(directory: Path, name: str) -> Path:
    return directory / f"{name.rpartition('/')[2]}.last"


def read_last(directory: Path, name: str) -> bytes | None:
    """The last checkpoint that was signed, as it is kept beside the keys: the log and its tree can't be put back to an
    older state without a trace. Raises KeysError."""
    path = _last_path(directory, name)
    return read_key(path, MAX_NOTE_BYTES) if path.exists() else None


class LogKeys:
    """Signs checkpoints of one log. For one thread at a time."""

    def __init__(self, directory: Path, name: str, *, tree: Path, clock: Callable[[], int]) -> None:
        """Keys are files of `directory`, made when missing. Raises KeysError."""
        self._directory = directory
        self._name = name
        self._tree = tree
        self._clock = clock
        try:
            make_private_directory(directory)
        except OSError as error:
            raise KeysError(f"the directory `{directory}` can't be made: {why(error)}") from error
        self._keys = _load(directory, name)
        self.made = not self._keys
        """Whether there was none before."""
        if self.made:
            self._keys = [self._make()]

    @property
    def verifiers(self) -> list[Verifier]:
        """The one that signs first."""
        return [key.signer.verifier for key in self._keys]

    def trust(self) -> Trust:
        """What we have signed ourselves."""
        return Trust(self._name, self.verifiers, handovers_of(self._tree)[0])

    def last(self) -> bytes | None:
        """See `read_last`."""
        return read_last(self._directory, self._name)

    def sign(self, checkpoint: Checkpoint) -> Note:
        """Signed by the key of this month; the first one of a new key by the old one, too, and the new key vouched for.
        Raises OSError."""
        if self._clock() - self._keys[0].made_us >= ROTATE_US:
            try:
                self._keys.insert(0, self._make())
            except KeysError as error:
                _log.warning("the log's key is older than a month, and no new one can be made: %s", error)
        note = Note.signed(checkpoint.text, [key.signer for key in self._keys])
        for older in self._keys[:0:-1]:
            self._hand_over(older, self._keys[0], checkpoint)
            private_key_path(self._directory, older.made_us).unlink(missing_ok=True)
            self._keys.remove(older)
        return note

    def keep_last(self, note: Note) -> None:
        """Raises OSError."""
        write_files(self._directory, {_last_path(self._directory, self._name).name: str(note).encode()})

    def _hand_over(self, old: _Key, new: _Key, checkpoint: Checkpoint) -> None:
        handover = Handover(checkpoint, old.signer.verifier, new.signer.verifier)
        note = Note.signed(handover.text, [old.signer, new.signer])
        write_files(self._tree, {f"{HANDOVERS}/{new.made_us}-{old.made_us}.note": str(note).encode()})

    def _make(self) -> _Key:
        now_us = self._clock()
        private = Ed25519PrivateKey.generate()
        make_private_key(private_key_path(self._directory, now_us), private)
        return _Key(now_us, Signer(self._name, private))
