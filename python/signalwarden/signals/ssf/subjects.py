"""Whom an event is about: subject identifiers (RFC 9493, SSF 1.0 section 3) as subjects of a contract.

An event is about one thing. A complex subject says so in several members, and is about whatever matches them all: a
member that it does not have matches everything (SSF 1.0, section 8.1.3.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from signalwarden.values import spiffe_trust_domain

__all__ = ["EVERYONE", "Aim", "InexpressibleError", "Rules", "Subject", "read_subject"]

EVERYONE: Final = "*"
"""The subject of a value that holds for every subject of the contract's kind."""
PLACEHOLDER: Final = "{id}"
MAX_ID_BYTES: Final = 1_024
"""Half of what a subject may have: the template around it needs some."""
MAX_MEMBERS: Final = 32
"""SSF names seven; others may be agreed."""
MAX_ALIASES: Final = 16

# Formats of RFC 9493 section 3.2 whose identifier is one text, and the member that holds it.
_TEXT_OF: Final = {
    "account": "uri",
    "email": "email",
    "opaque": "id",
    "phone_number": "phone_number",
    "did": "url",
    "uri": "uri",
}
# Formats of SSF 1.0 section 3.4: they name a token or addresses, never a user or a device.
_NAME_NOTHING_OF_OURS: Final = ("jwt_id", "saml_assertion_id", "ip-addresses")
# What can stand in a template without changing what stands around it, by the kind of the contract's subject.
_SAFE: Final = {
    "principal": re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]+"),
    "resource": re.compile(r'[^"\\\x00-\x1f\x7f]+'),
}
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_RESOURCE: Final = re.compile(r'[A-Za-z_][A-Za-z0-9_:]*::"[^\x00-\x1f\x7f]+"')


class InexpressibleError(Exception):
    """An event that can't be made a value of the contract. Its text names no subject."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """One thing, by the names that the transmitter gives it."""

    names: tuple[str, ...]
    """Empty: it is named in a way that says nothing here, and `problem` says why."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject as it came: simple, or members."""

    simple: Identifier | None
    members: Mapping[str, Identifier]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a feed says of the subjects of its events."""

    issuer: str
    fixed: Mapping[str, str]
    """`members`: an event that has one of them with another name is about someone else."""
    critical: frozenset[str]
    """`critical_members`: an event that has one is only understood by who understands it."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a contract says of its subjects: `subject: {member, as}`, and their kind."""

    kind: str
    member: str
    template: str = PLACEHOLDER

    def subjects(self, subject: Subject, rules: Rules) -> tuple[str, ...]:
        """The contract's subjects that the event is about: none if it is about someone else, `*` for every one.

        Raises InexpressibleError if it is about something that the contract has no subject for."""
        understood = {self.member, *rules.fixed}
        if unknown := sorted(rules.critical & subject.members.keys() - understood):
            raise InexpressibleError(f"the critical member `{unknown[0]}` is not understood")
        if subject.simple is not None:
            # A simple subject is the contract's own member, by itself.
            return self._among({self.member: subject.simple}, rules)
        return self._among(subject.members, rules)

    def _among(self, members: Mapping[str, Identifier], rules: Rules) -> tuple[str, ...]:
        for name, wanted in rules.fixed.items():
            if name in members and wanted not in _named(members[name]):
                return ()
        narrower = members.keys() - rules.fixed.keys()
        if self.kind == "global":
            if narrower or not members:
                raise InexpressibleError("it is about less than everything that the feed's `members` name")
            return (EVERYONE,)
        if self.member in members:
            return self._express(members[self.member])
        if narrower:
            # "Every device of this user" is no subject: for one it says too little, for all too much.
            raise InexpressibleError(f"it names no `{self.member}`, and only a part of them by other members")
        return (EVERYONE,)

    def _express(self, identifier: Identifier) -> tuple[str, ...]:
        safe = _PRINTABLE if self.template == PLACEHOLDER else _SAFE.get(self.kind, _PRINTABLE)
        good = [name for name in _named(identifier) if safe.fullmatch(name)]
        subjects = dict.fromkeys(self.template.replace(PLACEHOLDER, name) for name in good)
        subjects.pop(EVERYONE, None)  # one that calls itself `*` is not everyone
        fitting = tuple(subject for subject in subjects if _fits(self.kind, subject))
        if not fitting:
            raise InexpressibleError(f"its `{self.member}` can't be written as a subject of the contract")
        return fitting


def _fits(kind: str, subject: str) -> bool:
    """The form of the kind, roughly: the core judges it. Of several names of one thing only some may have it."""
    if kind == "principal":
        return spiffe_trust_domain(subject) is not None
    return kind != "resource" or _RESOURCE.fullmatch(subject) is not None


def _named(identifier: Identifier) -> tuple[str, ...]:
    if not identifier.names:
        raise InexpressibleError(identifier.problem)
    return identifier.names


# ---------------------------------------------------------------- reading


def read_subject(claim: object, issuer: str) -> Subject:
    """Reads `sub_id`. Members that can't be read are kept as such: they matter only to who needs them."""
    if not isinstance(claim, dict):
        raise InexpressibleError("the event has no `sub_id`")
    if claim.get("format") != "complex":
        return Subject(_identifier(claim, issuer), {})
    members = {name: _identifier(value, issuer) for name, value in claim.items() if name != "format"}
    if not 0 < len(members) <= MAX_MEMBERS:
        raise InexpressibleError(f"a complex subject has 1 to {MAX_MEMBERS} members")
    return Subject(None, members)


def _identifier(value: object, issuer: str, *, nested: bool = False) -> Identifier:
    if not isinstance(value, dict):
        return Identifier((), "a subject identifier is no object")
    name = value.get("format")
    if name == "aliases":
        return _aliases(value, issuer) if not nested else Identifier((), "aliases can't be nested")
    if name == "iss_sub":
        # `sub` is a name among the accounts of its issuer: another issuer's is somebody else.
        if value.get("iss") != issuer:
            return Identifier((), "an `iss_sub` identifier is of another issuer than the feed's")
        return _text(value, "sub")
    if name in _NAME_NOTHING_OF_OURS:
        return Identifier((), f"an identifier of format `{name}` names no subject of a contract")
    if isinstance(name, str) and name in _TEXT_OF:
        return _text(value, _TEXT_OF[name])
    return Identifier((), "the format of a subject identifier is not known")


def _text(value: Mapping[str, Any], member: str) -> Identifier:
    text = value.get(member)
    if not isinstance(text, str) or not 0 < len(text.encode()) <= MAX_ID_BYTES:
        return Identifier((), f"`{member}` of a subject identifier is no text of 1 to {MAX_ID_BYTES} bytes")
    return Identifier((text,))


def _aliases(value: Mapping[str, Any], issuer: str) -> Identifier:
    """Several names of one subject (RFC 9493 section 3.2.8)."""
    listed = value.get("identifiers")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_ALIASES:
        return Identifier((), f"`aliases` is no list of 1 to {MAX_ALIASES} identifiers")
    found = [_identifier(entry, issuer, nested=True) for entry in listed]
    names = tuple(dict.fromkeys(name for identifier in found for name in identifier.names))
    return Identifier(names, "" if names else found[0].problem)
