"""Signs a contract of a directory, or its removal, and puts the signature where a load looks for it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from signalwarden import _core, config
from signalwarden.approvers import REMOVED, approvers_of, extended, private_key, public_text
from signalwarden.directory import APPROVALS, Directory
from signalwarden.errors import BadInputError
from signalwarden.files import why

__all__ = ["Approved", "approve"]

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""A signal's name becomes a file's."""
ADDRESS: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,256}")


@dataclass(frozen=True, slots=True)
class Approved:
    """What was signed."""

    digest: str
    file: Path
    note: str | None
    """What the one who signed should know."""


def approve(
    directory: Path, signal: str, *, approver: str, key: bytes, key_name: str, removal: bool, now_us: int
) -> Approved:
    """Makes or extends `approvals/SIGNAL.json`. `key` is PEM, `key_name` what to call it in an error. Raises
    BadInputError, and ConfigurationError if the directory has mistakes other than approvals that are missing."""
    if not NAME.fullmatch(signal):
        raise BadInputError(f"`{signal}` is not a name of a signal")
    if not ADDRESS.fullmatch(approver):
        raise BadInputError(f"`{approver}` is not an id of an approver, such as `alice@prod.example`")
    private = private_key(key, key_name)
    digest, note = REMOVED, None
    if not removal:
        contract = _contract(directory, signal, now_us)
        digest = contract["digest"]
        known = {one.id: one.ed25519 for one in approvers_of(contract)}
        if approver not in known:
            note = (
                f"the contract does not name `{approver}`: the signature counts only if what is in force does"
            )
        elif known[approver] != public_text(private):
            note = f"the contract names another key of `{approver}`: this one counts only if what is in force names it"
    file = directory / APPROVALS / f"{signal}.json"
    try:
        before = file.read_bytes() if file.exists() else None
        _write(file, extended(before, signal=signal, digest=digest, approver=approver, key=private))
    except OSError as error:
        raise BadInputError(f"`{file}` can't be written: {why(error)}") from error
    except BadInputError as error:
        raise BadInputError(f"`{file}` {error}: remove it and let all sign again") from error
    return Approved(digest, file, note)


def _contract(directory: Path, signal: str, now_us: int) -> dict[str, Any]:
    loaded = config.judge(Directory.read(directory), now_us, unapproved=True)
    contracts = {contract["name"]: contract for contract in loaded.described()["signals"]}
    if signal not in contracts:
        near = _core.nearest_name(signal, sorted(contracts))
        hint = f", did you mean `{near}`?" if near else "; to approve that it is gone: `--removal`"
        raise BadInputError(f"no signal is named `{signal}`{hint}")
    found: dict[str, Any] = contracts[signal]
    return found


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all: a server may be watching."""
    file.parent.mkdir(exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
