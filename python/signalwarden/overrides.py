"""Overrides: the word of two people in place of a signal that is unavailable, for a stated time and reason.

The core says when one counts (never beside a fresh value) and when it ends; here two clients come to agree on it, and
what they did stands in the log. Two client ids that one person holds can't be told apart: whoever writes `clients:`
sees to that. Two entries of one SPIFFE ID are one client.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from signalwarden.decision_log import rfc3339
from signalwarden.errors import BadInputError, CallRefusedError
from signalwarden.values import span_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalwarden import _core
    from signalwarden.decision_log import Recorder
    from signalwarden.intake import Intake
    from signalwarden.refusals import Refusals

__all__ = ["CONFIRM_WITHIN_S", "MAX_PROPOSALS", "MAX_PROPOSALS_OF_ONE", "MAX_REASON", "Overrides", "Proposal"]

CONFIRM_WITHIN_S: Final = 600
"""A proposal that nobody has confirmed by then is void: the second person is called at once, or the case is another."""
MAX_PROPOSALS: Final = 64
"""That wait at once. An outage has a handful of dead feeds."""
MAX_PROPOSALS_OF_ONE: Final = 16
"""Of one client, so that it leaves room for others."""
MAX_REASON: Final = 512
"""Letters of the reason: a sentence and the number of an incident, in a record that people read."""
MAX_SUBJECT: Final = 4_096
"""Letters; the core's own bound on a subject is no larger."""
MAX_VALUE_BYTES: Final = 4_096
"""Of the value as JSON, as for a published one."""
SECRET: Final = "secret"  # noqa: S105  # a word of contracts
"""Sensitivity of a signal whose values no record and no list has."""
EXPECTED: Final = (
    'expected an object of exactly "value", "subject" (a text), "reason" (a sentence of 1 to '
    f'{MAX_REASON} letters) and "ttl" (a time such as `10m`)'
)


class Overriding(Protocol):
    """The part of the engine that overrides."""

    def override(
        self,
        name: str,
        *,
        subject: str,
        value: bytes,
        reason: str,
        by: tuple[str, str],
        ttl_us: int,
        now_us: int,
    ) -> _core.StoredChange:
        """The change that overrides; changes nothing yet. Raises BadInputError and CallRefusedError."""

    def overrides(self, now_us: int) -> bytes:
        """What is in force, as JSON `{"overrides": […]}`."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What both must say alike, to the letter of the reason."""

    name: str
    subject: str
    value: bytes
    """JSON, its keys sorted."""
    ttl_us: int
    reason: str

    @classmethod
    def parse(cls, name: str, body: bytes) -> Proposal:
        """Of the body of POST /v1/signals/{name}/override. Raises BadInputError, which never repeats what was sent."""
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise BadInputError(EXPECTED) from None
        if not isinstance(content, dict) or content.keys() != {"value", "subject", "reason", "ttl"}:
            raise BadInputError(EXPECTED)
        subject, reason = content["subject"], content["reason"]
        if not _good(subject, MAX_SUBJECT) or not _good(reason, MAX_REASON):
            raise BadInputError(EXPECTED)
        try:
            value = orjson.dumps(content["value"], option=orjson.OPT_SORT_KEYS)
        except TypeError:  # nested beyond what orjson writes
            raise BadInputError(EXPECTED) from None
        if len(value) > MAX_VALUE_BYTES:
            raise BadInputError(f"`value`: expected at most {MAX_VALUE_BYTES} bytes")
        return cls(name, subject, value, _micros(content["ttl"]), reason.strip())


def _good(text: object, longest: int) -> bool:
    return isinstance(text, str) and bool(text.strip()) and len(text) <= longest and text.isprintable()


def _micros(text: object) -> int:
    try:
        micros = round(span_s(text) * 1_000_000)
    except ValueError:
        micros = 0
    if not isinstance(text, str) or micros <= 0:
        raise BadInputError("`ttl`: expected a time such as `90s` or `10m`")
    return micros


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A proposal, by whom, and until when another may confirm it."""

    by: str
    until_us: int


class Overrides:
    """The overrides of a running app. Thread-safe. Proposals are in memory alone: a restart asks both again."""

    def __init__(
        self,
        engine: Overriding,
        intake: Intake,
        recorder: Recorder,
        refusals: Refusals,
        *,
        description: Callable[[], bytes],
        may: Callable[[str], bool],
        clock: Callable[[], int],
    ) -> None:
        """`description`: of the configuration in force. `may`: whether a client has the right `override` now."""
        self._engine = engine
        self._intake = intake
        self._recorder = recorder
        self._refusals = refusals
        self._description = description
        self._may = may
        self._clock = clock
        self._mutex = threading.Lock()
        """Held from finding a proposal to its change: two that confirm at once make one override."""
        self._proposals: dict[Proposal, _Waiting] = {}
        self._seen: dict[tuple[str, str], dict[str, Any]] = {}
        """What was in force at the last look, by signal and subject."""
        self._seen_lock = threading.Lock()

    # ------------------------------------------------------------ two people

    def override(self, client: str, name: str, body: bytes) -> tuple[int, bytes]:
        """Proposes, or confirms what another has proposed to the letter. Status and JSON of the answer: 202
        `{"state": "proposed", "proposed_by", "confirm_before"}`, or 201 `{"state": "in_force", "expires_at", "by"}`
        after the durable write. Raises BadInputError, CallRefusedError, StateError."""
        with self._refusals.noted(client, "signal.override", name), self._mutex:
            asked = Proposal.parse(name, body)
            if asked.subject == client:
                # INVARIANT I3: what one says of itself widens nothing.
                raise CallRefusedError(
                    "own_approval", f"the signal is about `{client}` itself: two others must say it"
                )
            self._drop_void()
            waiting = self._proposals.get(asked)
            if waiting is None:
                return 202, self._propose(client, asked)
            if waiting.by == client:
                until = rfc3339(waiting.until_us)
                raise CallRefusedError(
                    "same_person",
                    f"`{client}` has proposed this itself: another client must confirm it before {until}",
                )
            self._intake.keep(lambda: [self._make(asked, (waiting.by, client), self._clock())])
            del self._proposals[asked]
        return 201, self._confirmed(asked, (waiting.by, client))

    def _propose(self, client: str, asked: Proposal) -> bytes:
        of_one = sum(waiting.by == client for waiting in self._proposals.values())
        if len(self._proposals) >= MAX_PROPOSALS or of_one >= MAX_PROPOSALS_OF_ONE:
            raise CallRefusedError(
                "too_many_proposals",
                f"{max(of_one, 1)} proposals of this client and {len(self._proposals)} in all wait for a second one",
            )
        now = self._clock()
        # Judged now, too, so that the second person is not called for what can't be.
        self._make(asked, (client, self._another(client)), now)
        waiting = self._proposals[asked] = _Waiting(client, now + CONFIRM_WITHIN_S * 1_000_000)
        until = rfc3339(waiting.until_us)
        self._recorder.change(
            "override_proposed", actor=client, override=self._told(asked), confirm_before=until
        )
        return orjson.dumps({"state": "proposed", "proposed_by": client, "confirm_before": until})

    @staticmethod
    def _another(client: str) -> str:
        """Stands for the second client while there is none."""
        return f"{client}/another"

    def _make(self, asked: Proposal, by: tuple[str, str], now: int) -> _core.StoredChange:
        return self._engine.override(
            asked.name, subject=asked.subject, value=asked.value, reason=asked.reason, by=by, ttl_us=asked.ttl_us,
            now_us=now,
        )  # fmt: skip

    def _confirmed(self, asked: Proposal, by: tuple[str, str]) -> bytes:
        now = self._clock()
        live = next(
            (entry for entry in self._in_force(now) if _key(entry) == (asked.name, asked.subject)), None
        )
        expires_at = live["expires_at"] if live else rfc3339(now + asked.ttl_us)
        self._recorder.change(
            "signal_overridden", actor=by[1], by=list(by), override=self._told(asked), expires_at=expires_at
        )
        self.sweep()
        return orjson.dumps({"state": "in_force", "expires_at": expires_at, "by": list(by)})

    def _drop_void(self) -> None:
        """What nobody confirmed in time, and what was proposed by one who may no longer."""
        now = self._clock()
        self._proposals = {
            asked: waiting
            for asked, waiting in self._proposals.items()
            if waiting.until_us > now and self._may(waiting.by)
        }

    # ------------------------------------------------------------ what is in force

    def listing(self) -> bytes:
        """JSON of GET /v1/overrides: `{"overrides": [{…}], "proposals": [{…}]}`."""
        with self._mutex:
            self._drop_void()
            waiting = list(self._proposals.items())
        proposals = [
            {**self._told(asked), "proposed_by": who.by, "confirm_before": rfc3339(who.until_us)}
            for asked, who in waiting
        ]
        return orjson.dumps({"overrides": self._in_force(self._clock()), "proposals": proposals})

    def detail(self) -> list[dict[str, Any]]:
        """For `/readyz`, which is open to all: which signal, of whom and until when, not the value and not the
        reason."""
        return [
            {"name": entry["name"], "subject": entry["subject"], "expires_at": entry["expires_at"]}
            for entry in self._in_force(self._clock())
        ]

    def numbers(self) -> dict[str, float]:
        """For metrics: how many are in force, and how many wait for a second client."""
        with self._mutex:
            self._drop_void()
            waiting = len(self._proposals)
        return {"overrides": len(self._in_force(self._clock())), "override_proposals": waiting}

    def sweep(self) -> None:
        """Every second: a record for each override that has ended since the last look."""
        with self._seen_lock:
            now = {_key(entry): entry for entry in self._in_force(self._clock())}
            ended = [entry for key, entry in self._seen.items() if key not in now]
            self._seen = now
        for entry in ended:
            self._recorder.change(
                "override_ended",
                actor="server",
                signal=entry["name"],
                subject=entry["subject"],
                expires_at=entry["expires_at"],
            )

    def _in_force(self, now_us: int) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = orjson.loads(self._engine.overrides(now_us))["overrides"]
        return entries

    def _told(self, asked: Proposal) -> dict[str, Any]:
        """In words of the API; without the value of a secret signal."""
        told = {
            "name": asked.name,
            "subject": asked.subject,
            "reason": asked.reason,
            "ttl_s": asked.ttl_us / 1e6,
        }
        return told if self._secret(asked.name) else {**told, "value": orjson.loads(asked.value)}

    def _secret(self, name: str) -> bool:
        told = {
            signal["name"]: signal["sensitivity"] for signal in orjson.loads(self._description())["signals"]
        }
        # What is not known is not told.
        return bool(told.get(name, SECRET) == SECRET)


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["name"], entry["subject"]
