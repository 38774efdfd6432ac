"""What an event says: from its type and payload to a value of a contract, as the register maps it.

The types are those of CAEP 1.0 section 3, and whatever else a register names by its URI.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from signalwarden.jose import microseconds
from signalwarden.signals.ssf.set import SecurityEventToken
from signalwarden.signals.ssf.subjects import Aim, InexpressibleError, Rules, Subject, read_subject

__all__ = [
    "CAEP",
    "STREAM_UPDATED",
    "VERIFICATION",
    "Contract",
    "Loss",
    "Meaning",
    "Reading",
    "contracts_of",
    "read_events",
]

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
TOKEN_CLAIMS_CHANGE: Final = CAEP + "token-claims-change"
SESSION_REVOKED: Final = CAEP + "session-revoked"
RISK_LEVEL_CHANGE: Final = CAEP + "risk-level-change"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
VERIFICATION: Final = SSF + "verification"
STREAM_UPDATED: Final = SSF + "stream-updated"
PRINCIPAL: Final = "principal"
"""The kind of subject that may hold tasks."""
ENABLED: Final = "enabled"
"""The one status of a stream in which events come; in `paused` and `disabled` they don't."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the register says of one type of event: a fixed value, or a claim and what its words mean."""

    claim: tuple[str, ...]
    """Where the claim stands in the payload; empty: the value is fixed."""
    value: object
    values: Mapping[str, object] | None
    """None: the claim is the value."""

    @staticmethod
    def of(described: Mapping[str, Any]) -> Meaning:
        """From `events: {TYPE: {value}}` or `{TYPE: {claim, values}}` of a described source."""
        claim = described.get("claim", ())
        path = (claim,) if isinstance(claim, str) else tuple(claim)
        return Meaning(path, described.get("value"), described.get("values"))

    def value_in(self, payload: Mapping[str, Any]) -> object:
        """The value. Raises InexpressibleError if the claim is missing or says something that has no value."""
        if not self.claim:
            return self.value
        found: object = payload
        for step in self.claim:
            if not isinstance(found, dict) or step not in found:
                raise InexpressibleError(f"it has no claim `{'.'.join(self.claim)}`")
            found = found[step]
        if self.values is None:
            return found
        word = _word(found)
        if word is None or word not in self.values:
            raise InexpressibleError(f"`values` has no entry for its claim `{'.'.join(self.claim)}`")
        return self.values[word]


def _word(found: object) -> str | None:
    """A claim as it is written as a key of `values`."""
    match found:
        case bool():
            return "true" if found else "false"
        case str():
            return found
        case int():
            return str(found)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Contract:
    """How events of a feed become values of one contract."""

    signal: str
    aim: Aim
    meanings: Mapping[str, Meaning]
    """By the URI of the type."""

    def speaks_of(self, uri: str, payload: Mapping[str, Any], *, of: str) -> bool:
        """Whether an event of a mapped type says anything about this contract."""
        meaning = self.meanings[uri]
        if uri == RISK_LEVEL_CHANGE and "principal" in payload:
            # Whose risk it is, of those that the subject names (CAEP 1.0 section 3.8.1).
            principal = payload["principal"]
            if not isinstance(principal, str):
                raise InexpressibleError("its claim `principal` is no text")
            return principal.lower() == of
        if uri == TOKEN_CLAIMS_CHANGE and meaning.claim[:1] == ("claims",):
            # It lists the claims that changed (section 3.2.1): of the others it says nothing.
            claims = payload.get("claims")
            return not isinstance(claims, dict) or len(meaning.claim) < 2 or meaning.claim[1] in claims
        return True


def contracts_of(signals: Iterable[Mapping[str, Any]], feed: str) -> tuple[Contract, ...]:
    """The contracts that a feed feeds, from `Configuration.describe()["signals"]`."""
    return tuple(_contracts(signals, feed))


def _contracts(signals: Iterable[Mapping[str, Any]], feed: str) -> Iterator[Contract]:
    for signal in signals:
        for source in signal["sources"]:
            if source["kind"] != "ssf" or source.get("feed") != feed:
                continue
            subject = source["subject"]
            aim = Aim(signal["subject"], subject["member"], subject["as"])
            yield Contract(
                signal["name"],
                aim,
                {_uri(name): Meaning.of(described) for name, described in source["events"].items()},
            )


def _uri(name: str) -> str:
    """The type's URI: CAEP's own have short names in the register."""
    return name if ":" in name else CAEP + name


# ---------------------------------------------------------------- a SET as values


@dataclass(frozen=True, slots=True)
class Loss:
    """A principal's session was revoked: whatever it was given up to then counts no more."""

    principal: str
    """`*`: every one."""
    at_us: int
    """A time in whole seconds is the end of that second: what began in it may have begun before."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a SET comes to."""

    publications: tuple[Mapping[str, object], ...]
    """Entries of a body of `POST /v1/signals`."""
    problems: tuple[str, ...]
    """Why an event that some contract maps gave it no value; without anything of the event but its type."""
    of_stream: bool
    """It speaks of the stream itself. Without that and without values, it concerns no signal."""
    losses: tuple[Loss, ...] = ()
    """Whose session it revokes, as contracts of principals map that; each once."""


def read_events(token: SecurityEventToken, contracts: Sequence[Contract], rules: Rules) -> Reading:
    """Every value that the SET gives. For a contract all its events count, or none."""
    publications: list[Mapping[str, object]] = []
    problems: dict[str, None] = {}
    subject: Subject | None = None
    for contract in contracts:
        events = [uri for uri in token.events if uri in contract.meanings]
        at = ""
        values: list[Mapping[str, object]] = []
        try:
            for at in events:
                subject = subject or read_subject(token.subject, rules.issuer)
                values += _values(token, contract, at, subject, rules)
        except InexpressibleError as error:
            problems[f"an event `{at.rsplit('/', 1)[-1]}` can't become a `{contract.signal}`: {error}"] = None
            values = []
        publications += values
    problems.update(dict.fromkeys(_of_the_stream(token)))
    of_stream = VERIFICATION in token.events or STREAM_UPDATED in token.events
    return Reading(tuple(publications), tuple(problems), of_stream, _losses(token, contracts, rules))


def _values(
    token: SecurityEventToken, contract: Contract, uri: str, subject: Subject, rules: Rules
) -> Iterator[Mapping[str, object]]:
    payload = token.events[uri]
    if not contract.speaks_of(uri, payload, of=contract.aim.member):
        return
    subjects = contract.aim.subjects(subject, rules)
    if not subjects:
        return
    value = contract.meanings[uri].value_in(payload)
    observed_at = _observed_at(token, payload)
    for name in subjects:
        yield {"name": contract.signal, "subject": name, "value": value, "observed_at": observed_at}


def _losses(token: SecurityEventToken, contracts: Sequence[Contract], rules: Rules) -> tuple[Loss, ...]:
    """Whatever else the SET says, and whatever value it comes to: what can't be read is a problem already."""
    found: dict[str, Loss] = {}
    for contract in contracts:
        if (
            contract.aim.kind != PRINCIPAL
            or not {SESSION_REVOKED} <= token.events.keys() & contract.meanings.keys()
        ):
            continue
        with contextlib.suppress(InexpressibleError):
            at_us = _at_us(token, token.events[SESSION_REVOKED])
            at_us += 0 if at_us % 1_000_000 else 999_999
            for name in contract.aim.subjects(read_subject(token.subject, rules.issuer), rules):
                found[name] = Loss(name, at_us)
    return tuple(found.values())


def _observed_at(token: SecurityEventToken, payload: Mapping[str, Any]) -> str:
    """When it happened: seconds since 1970 in `event_timestamp` (CAEP 1.0 section 2), else when the SET was issued."""
    seconds, micros = divmod(_at_us(token, payload), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros, tzinfo=None).isoformat() + "Z"


def _at_us(token: SecurityEventToken, payload: Mapping[str, Any]) -> int:
    at: int | None = token.issued_at_us
    if "event_timestamp" in payload:
        at = microseconds(payload["event_timestamp"])
    if at is None:
        raise InexpressibleError("its `event_timestamp` is no number of seconds since 1970")
    return at


def _of_the_stream(token: SecurityEventToken) -> Iterator[str]:
    """What the transmitter says of the stream itself (SSF 1.0, section 8.1.5)."""
    updated = token.events.get(STREAM_UPDATED)
    if updated is None or updated.get("status") == ENABLED:
        return
    status = updated.get("status")
    known = status if status in ("paused", "disabled") else "unknown"
    yield f"the transmitter says that the stream is {known}"
