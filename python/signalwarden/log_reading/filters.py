"""Which records a reader wants: what the options of the command line say, made into one question to a record.

What one option names several times is an alternative; different options must all hold.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from signalwarden import _core, values
from signalwarden.decision_log.heads import written
from signalwarden.decision_log.parts import map_of
from signalwarden.errors import BadInputError
from signalwarden.values import long_span_s, one_of, suggestion

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["INFLUENCES", "STATES", "Filters", "ended_before", "moment"]

STATES: Final = ("fresh", "stale", "missing", "disputed", "unverified", "future")
INFLUENCES: Final = ("decisive", "consulted", "refused")

Record = dict[str, Any]
Question = Callable[[Record], bool]


@dataclass(frozen=True, slots=True)
class Filters:
    """The options as they were given. `question` makes them one; it raises BadInputError for one that means nothing."""

    deny: bool = False
    allow: bool = False
    principals: Sequence[str] = ()
    signals: Sequence[str] = ()
    reasons: Sequence[str] = ()
    actions: Sequence[str] = ()
    resources: Sequence[str] = ()
    routes: Sequence[str] = ()
    tasks: Sequence[str] = ()
    hosts: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def question(self) -> Question:
        """Whether a record is wanted."""
        questions = [
            *self._outcomes(),
            *(_any_of(_reason(text) for text in given) for given in (self.reasons,) if given),
            *_globs(self.principals, _principal, _principal_of),
            *_globs(self.actions, _plain, lambda record: _texts(map_of(record.get("request")).get("action"))),
            *_globs(
                self.resources, _plain, lambda record: _texts(map_of(record.get("request")).get("resource"))
            ),
            *_globs(self.routes, _route, lambda record: _texts(map_of(record.get("request")).get("route"))),
            *_globs(self.tasks, _plain, _tasks_of),
            *_globs(self.hosts, _plain, lambda record: _texts(map_of(record.get("request")).get("host"))),
            *(_any_of(_signal(text) for text in given) for given in (self.signals,) if given),
            *self._times(),
        ]
        match questions:
            case []:
                return lambda _: True
            case [one]:
                return one
        return lambda record: all(question(record) for question in questions)

    def _outcomes(self) -> list[Question]:
        wanted = {word for word, given in (("deny", self.deny), ("allow", self.allow)) if given}
        return [lambda record: record.get("outcome") in wanted] if wanted else []

    def _times(self) -> list[Question]:
        questions: list[Question] = []
        since, until = self.since_text(), self.until_text()
        # Times of records are UTC with six digits, so they compare as text.
        if since is not None:
            questions.append(lambda record: str(record.get("time")) >= since)
        if until is not None:
            questions.append(lambda record: str(record.get("time")) < until)
        if since is not None and until is not None and since >= until:
            raise BadInputError(
                f"--since {self.since} is not before --until {self.until}: no record can be both"
            )
        return questions

    def since_text(self) -> str | None:
        """The beginning, as records write times."""
        return None if self.since is None else written(moment(self.since, self.now, "--since"))

    def until_text(self) -> str | None:
        """The end, which is not within."""
        return None if self.until is None else written(moment(self.until, self.now, "--until"))

    def too_old(self, file: Path) -> bool:
        """Whether a rotated file ends before the beginning."""
        if self.since is None:
            return False
        return ended_before(file, round(moment(self.since, self.now, "--since").timestamp() * 1e6))


MARK_AHEAD: Final = timedelta(hours=1, minutes=1)
"""A decision's time may be ahead of the clock by an hour at most (the mark of time)."""


def ended_before(file: Path, time_us: int) -> bool:
    """Whether a rotated file was full before a time, by the time in its name."""
    found = re.search(r"-(\d{8}T\d{6})Z\.", file.name)
    if found is None:
        return False
    ended = datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return (ended + MARK_AHEAD).timestamp() * 1e6 < time_us


def moment(text: str, now: datetime, option: str) -> datetime:
    """A time, or how long ago: `10m`, `2026-11-24T10:00:00Z`. Raises BadInputError."""
    found = values.moment(text, now, long_span_s)
    if found is None:
        raise BadInputError(
            f"{option} `{text}` is neither a span such as `10m`, `2h` or `1d` nor an RFC 3339 time such as "
            "`2026-11-24T10:00:00Z`"
        )
    return found


# ---- one option each --------------------------------------------------------------------------------------


def _any_of(questions: Any) -> Question:
    alternatives = list(questions)
    return lambda record: any(question(record) for question in alternatives)


def _reason(text: str) -> Question:
    known = [code for code, *_ in _core.reasons()]
    if text not in known:
        near = suggestion(text, known) or ", `signalwarden log stats` lists those of the log"
        raise BadInputError(f"--reason `{text}` is not a reason{near}")
    return lambda record: record.get("reason") == text


def _signal(text: str) -> Question:
    name, colon, what = text.partition(":")
    if re.fullmatch(r"[a-z][a-z0-9_]{0,63}|\*", name) is None:
        raise BadInputError(
            f"--signal `{text}` names no signal: expected NAME, NAME:STATE or NAME:INFLUENCE, such as `posture:missing`"
        )
    if colon and what not in (*STATES, *INFLUENCES):
        known = [*STATES, *INFLUENCES]
        raise BadInputError(
            f"--signal `{text}`: `{what}` is neither a state nor an influence"
            f"{suggestion(what, known) or f', expected {one_of(known)}'}"
        )
    key = "state" if what in STATES else "influence"

    def holds(record: Record) -> bool:
        return any(
            (name == "*" or signal.get("name") == name) and (not colon or signal.get(key) == what)
            for signal in record.get("signals") or ()
            if isinstance(signal, dict)
        )

    return holds


def _globs(
    given: Sequence[str], widen: Callable[[str], str], of: Callable[[Record], Sequence[str]]
) -> list[Question]:
    if not given:
        return []
    pattern = re.compile("|".join(f"(?:{fnmatch.translate(widen(text))})" for text in given))
    return [lambda record: any(pattern.match(text) for text in of(record))]


def _plain(text: str) -> str:
    # `[` is what resources and hosts may hold, and classes of letters are nothing that is looked for here.
    return text.replace("[", "[[]")


def _principal(text: str) -> str:
    """A SPIFFE ID, or its end: `refund-agent`, `agents/sa/*`."""
    return _plain(text if text.startswith(("spiffe:", "*")) else f"*/{text}")


def _route(text: str) -> str:
    """`routes.yaml:11`, or the line alone."""
    return f"routes.yaml:{text}" if text.isdigit() else _plain(text)


def _principal_of(record: Record) -> Sequence[str]:
    """Who asked; of changes, whom they are about."""
    asked = map_of(record.get("asked"))
    said = map_of(record.get("principal")).get("id"), record.get("principal"), asked.get("requester")
    return [text for text in said if isinstance(text, str)]


def _tasks_of(record: Record) -> Sequence[str]:
    """The task that a call belongs to and those above it; of changes, the task that they are about."""
    said = [map_of(record.get("grant")).get("task"), record.get("task_id"), record.get("parent")]
    above = map_of(record.get("chain")).get("tasks")
    said += [map_of(record.get("asked")).get("task_id"), *(above if isinstance(above, list) else [])]
    return [text for text in said if isinstance(text, str)]


def _texts(value: object) -> Sequence[str]:
    return [value] if isinstance(value, str) else []
