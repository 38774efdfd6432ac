"""What a test of policies is made of, once its file has been read: a case, what it gives, and what it expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

__all__ = [
    "ABSENT",
    "Absent",
    "Answer",
    "Case",
    "Draft",
    "Expected",
    "Place",
    "RequestDraft",
    "SignalGiven",
    "TaskGiven",
    "WithoutCheck",
]


class Absent:
    """Says that something is to be taken away, where leaving it out would keep what was there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file of cases."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class SignalGiven:
    """A value that was published before the case, or the word that none was."""

    name: str
    place: Place
    value: Any = None
    subject: str | None = None
    """None: whomever the decision asks about."""
    age_us: int = 0
    state: str | None = None
    """`missing`, `stale` or `unverified`, where the case names a state in place of an age."""
    by: str | None = None
    """Who sent it; None: its registered source."""


@dataclass(frozen=True, slots=True)
class TaskGiven:
    """A task that was begun before the case."""

    place: Place
    type: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    principal: str | None = None
    """None: the principal of the request."""
    client: str | None = None
    """Who began it; None: its principal."""
    more: Mapping[str, str] = field(default_factory=dict)
    """`workflow`, `sensitivity`, `environment`, where they are given."""
    ttl_us: int | None = None
    age_us: int = 0
    ended: str | None = None
    """`completed` or `revoked`."""
    parent: TaskGiven | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A question about the case's call that somebody answers: the answer is what is decided."""

    by: str
    place: Place


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """What a case says of its request; what it leaves out comes from its file or from what is usual."""

    place: Place
    file: str | None = None
    attributes: Mapping[str, Any] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    """`method`, `scheme`, `host`, `path`."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """None takes one away."""
    body: str | None = None
    principal: str | Absent | None = None
    address: str | None = None
    """Of the connection."""

    def under(self, over: RequestDraft | None) -> RequestDraft:
        """With what another says in place of what this one says. Another file is another request as a whole."""
        if over is None:
            return self
        if over.file is not None or over.attributes is not None:
            return over
        return RequestDraft(
            over.place,
            self.file,
            self.attributes,
            {**self.fields, **over.fields},
            {**self.headers, **over.headers},
            self.body if over.body is None else over.body,
            self.principal if over.principal is None else over.principal,
            self.address if over.address is None else over.address,
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What a case expects. None: whatever it is."""

    place: Place
    outcome: str | None = None
    reason: str | None = None
    http_status: int | None = None
    enforced: bool | None = None
    determining: frozenset[str] | None = None
    decisive: frozenset[str] | None = None
    refused: frozenset[str] | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    """State by signal."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A case, one of its variations, or the defaults of a file, as they were written: None is what was left out."""

    place: Place
    name: str | None = None
    request: RequestDraft | None = None
    signals: tuple[SignalGiven, ...] | None = None
    at_us: int | None = None
    task: TaskGiven | None = None
    before: tuple[RequestDraft, ...] | None = None
    approved_by: tuple[str, ...] | None = None
    begin: TaskGiven | None = None
    answer: Answer | None = None
    expect: Expected | None = None
    without: Mapping[str, str | None] | None = None
    """Reason that is expected, by the signal that is taken away."""
    without_places: Mapping[str, Place] = field(default_factory=dict)

    def under(self, over: Draft) -> Draft:
        """With what another says in place of what this one says. Signals by their names, requests key by key; what is
        expected as a whole."""
        request = over.request if self.request is None else self.request.under(over.request)
        return Draft(
            over.place,
            over.name,
            request,
            _merged(self.signals, over.signals),
            self.at_us if over.at_us is None else over.at_us,
            self.task if over.task is None else over.task,
            self.before if over.before is None else over.before,
            self.approved_by if over.approved_by is None else over.approved_by,
            self.begin if over.begin is None else over.begin,
            self.answer if over.answer is None else over.answer,
            over.expect,
            over.without,
            over.without_places,
        )


def _merged(
    under: tuple[SignalGiven, ...] | None, over: tuple[SignalGiven, ...] | None
) -> tuple[SignalGiven, ...] | None:
    """A name that stands above takes the place of all that stand below under it."""
    if under is None or over is None:
        return under if over is None else over
    named = {signal.name for signal in over}
    return (*(signal for signal in under if signal.name not in named), *over)


@dataclass(frozen=True, slots=True)
class WithoutCheck:
    """A generated case: another one with signals taken away, which must not be let through where that one is not."""

    signals: tuple[str, ...]
    whole: Case
    """The case that it is made of."""
    reason: str | None
    """What it must come to, where the author says so."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is decided."""

    name: str
    place: Place
    request: RequestDraft | None
    signals: tuple[SignalGiven, ...] = ()
    at_us: int | None = None
    task: TaskGiven | None = None
    before: tuple[RequestDraft, ...] = ()
    approved_by: tuple[str, ...] = ()
    begin: TaskGiven | None = None
    answer: Answer | None = None
    expect: Expected | None = None
    without: WithoutCheck | None = None

    @property
    def id(self) -> str:
        """`tests/refunds.yaml::a refund goes through`."""
        return f"{self.place.file}::{self.name}"

    def lacking(self, names: tuple[str, ...], place: Place, reason: str | None) -> Case:
        """The same with these signals taken away."""
        told = " and ".join(names)
        kept = tuple(signal for signal in self.signals if signal.name not in names)
        check = WithoutCheck(names, self, reason)
        return replace(
            self, name=f"{self.name}, without {told}", place=place, signals=kept, expect=None, without=check
        )
