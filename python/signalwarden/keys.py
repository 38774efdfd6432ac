"""Key files: made when missing, private, and apart from the log whose digests they protect."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from signalwarden.errors import KeysError
from signalwarden.files import make_private_directory, open_private, sync_directory, why

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeGuard

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["digest_key", "make_private_key", "private_key_path", "private_keys", "read_key"]

DIGEST_KEY: Final = "digest.key"
KEY_BYTES: Final = 32
"""As long as the digest (HMAC-SHA-256, RFC 2104 section 3)."""
SUFFIX: Final = ".pem"
MAX_PEM_BYTES: Final = 4_096
"""A key of P-256 has 241 bytes, one of Ed25519 119."""

Key = TypeVar("Key")


def digest_key(directory: Path) -> bytes:
    """The key under which the log names secret values: one value, one digest, over restarts."""
    path = directory / DIGEST_KEY
    try:
        make_private_directory(directory)
        if not path.exists():
            _make(path, os.urandom(KEY_BYTES))
    except OSError as error:
        raise KeysError(f"the key `{path}` can't be read: {why(error)}") from error
    key = read_key(path, KEY_BYTES)
    if len(key) != KEY_BYTES:
        raise KeysError(f"the key `{path}` is not a file of {KEY_BYTES} bytes")
    return key


def read_key(path: Path, max_bytes: int) -> bytes:
    """A key file; one byte more than that if it is longer, nothing if it is no regular file. Raises KeysError for one
    that can't be read, or can be by others."""
    try:
        fd = open_private(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            key = file.read(max_bytes + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise KeysError(f"the key `{path}` can't be read: {why(error)}") from error
    if status.st_mode & 0o077:
        raise KeysError(f"the key `{path}` can be read by other users, expected mode 0600")
    return key


def private_key_path(directory: Path, made_us: int) -> Path:
    """Of a key that is changed by another one: the file is named by when it was made."""
    return directory / f"{made_us}{SUFFIX}"


def private_keys(
    directory: Path, kind: str, is_one: Callable[[PrivateKeyTypes | None], TypeGuard[Key]], *, most: int
) -> list[tuple[int, Key]]:
    """Such keys and when each was made, newest first; none where there is no directory. `kind`: what all must be, in
    words; `most`: files that are read. Raises KeysError."""
    try:
        paths = [path for path in directory.iterdir() if path.suffix == SUFFIX] if directory.exists() else []
    except OSError as error:
        raise KeysError(f"the directory `{directory}` can't be read: {why(error)}") from error
    if len(paths) > most:
        raise KeysError(f"the directory `{directory}` has {len(paths)} keys, expected at most {most}")
    found = []
    for path in paths:
        content = read_key(path, MAX_PEM_BYTES)
        try:
            private = serialization.load_pem_private_key(content, password=None)
            made_us = int(path.stem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private, made_us = None, 0
        if not is_one(private):
            raise KeysError(f"the key `{path}` is no private key of {kind} in PEM, named by when it was made")
        found.append((made_us, private))
    return sorted(found, key=lambda key: key[0], reverse=True)


def make_private_key(path: Path, private: PrivateKeyTypes) -> None:
    """Writes a private key as PEM (PKCS #8, RFC 5958). Raises KeysError."""
    content = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        _make(path, content)
    except OSError as error:
        raise KeysError(f"the key `{path}` can't be made: {why(error)}") from error


def _make(path: Path, content: bytes) -> None:
    """Whole or not at all: a crash leaves no short key behind. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
        sync_directory(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
