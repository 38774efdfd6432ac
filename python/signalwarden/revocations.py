"""Credentials that no longer count before their time is up: revoked at once, for good, and by whom and why.

What is revoked is refused from the next request on, over a restart too. There is no way back: whoever was meant by
mistake gets a new credential.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from signalwarden.decision_log import rfc3339
from signalwarden.errors import BadInputError, RevocationsFullError
from signalwarden.values import instant

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalwarden import _core
    from signalwarden.decision_log import Recorder
    from signalwarden.intake import Intake

__all__ = ["MAX_REVOCATIONS", "Revocation", "Revocations"]

MAX_REVOCATIONS: Final = 1_000_000
"""The core's bound on what is in force. One is some 100 bytes; more than this is an issuer to be revoked as a whole."""
MAX_WHY: Final = 512
"""Letters of the reason: a sentence and the number of an incident, in a record that people read."""
EXPECTED: Final = (
    'expected an object of "reason" and one of "jti", "digest", "subject" and "issued_before"; "issuer" beside '
    '"jti", "subject" or "issued_before", and those last two may stand together'
)


class Revoking(Protocol):
    """The part of the engine that revokes."""

    def revoke(
        self,
        *,
        digest: str | None = None,
        jti: str | None = None,
        subject: str | None = None,
        issuer: str | None = None,
        issued_before_us: int | None = None,
        now_us: int,
    ) -> _core.StoredChange:
        """The change that revokes. Raises BadInputError."""

    def revocations(self, *, limit: int) -> bytes:
        """What is revoked, as JSON."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is to be revoked: one of `digest` and `jti`, or whatever `subject` or `issuer` was given up to a time."""

    digest: str | None
    jti: str | None
    subject: str | None
    issuer: str | None
    issued_before_us: int | None
    why: str
    """The reason, in words."""

    @classmethod
    def parse(cls, body: bytes) -> Revocation:
        """Of the body of POST /v1/revocations. Raises BadInputError, which never repeats what was sent: a token may
        stand there by mistake."""
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise BadInputError(EXPECTED) from None
        known = {"digest", "jti", "subject", "issuer", "issued_before", "reason"}
        if not isinstance(content, dict) or not content.keys() <= known:
            raise BadInputError(EXPECTED)
        if not all(isinstance(value, str) for value in content.values()):
            raise BadInputError(EXPECTED)
        _one_kind(content.keys() - {"reason"})
        return cls(
            content.get("digest"),
            content.get("jti"),
            content.get("subject"),
            content.get("issuer"),
            _micros(content["issued_before"]) if "issued_before" in content else None,
            _why(content.get("reason", "")),
        )


KINDS: Final = (
    *({"digest"}, {"jti"}, {"jti", "issuer"}, {"subject"}, {"subject", "issuer"}),
    *({"issued_before"}, {"issued_before", "issuer"}, {"issued_before", "subject"}),
    {"issued_before", "issuer", "subject"},
)
"""Which keys may stand together."""


def _one_kind(keys: set[str]) -> None:
    if keys not in KINDS:
        raise BadInputError(EXPECTED)


def _micros(text: str) -> int:
    try:
        moment = instant(text)
    except ValueError:
        raise BadInputError(
            "`issued_before`: expected an RFC 3339 time such as `2026-12-31T00:00:00Z`"
        ) from None
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _why(text: str) -> str:
    if not text.strip() or len(text) > MAX_WHY or not text.isprintable():
        raise BadInputError(f"`reason`: expected a sentence of 1 to {MAX_WHY} letters that says why")
    return text.strip()


class Revocations:
    """The revocations of a running app. Thread-safe."""

    def __init__(
        self, engine: Revoking, intake: Intake, recorder: Recorder, *, clock: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._recorder = recorder
        self._clock = clock

    def revoke(self, actor: str, body: bytes) -> bytes:
        """Revokes; JSON `{"revoked": {…}}` of what is in force now, after the durable write. Of a time that lies ahead
        only what is past counts. Raises BadInputError, RevocationsFullError and StateError."""
        asked = Revocation.parse(body)
        named = {key: value for key, value in asdict(asked).items() if key != "why"}
        done: list[_core.StoredChange] = []

        def make() -> list[_core.StoredChange]:
            self._make_sure_of_room()
            done.append(self._engine.revoke(**named, now_us=self._clock()))
            return done

        self._intake.keep(make)
        revoked = _in_force(done[0].payload)
        self._recorder.change("revoked", actor=actor, revoked=revoked, why=asked.why)
        return orjson.dumps({"revoked": revoked})

    def _make_sure_of_room(self) -> None:
        if orjson.loads(self._engine.revocations(limit=0))["count"] >= MAX_REVOCATIONS:
            raise RevocationsFullError(
                f"{MAX_REVOCATIONS} revocations are in force and no more are held: take the key or the issuer away"
            )

    def listing(self, limit: int) -> bytes:
        """JSON of GET /v1/revocations: `{"revocations": [{…}], "count", "truncated"}`; why and by whom is in the
        decision log."""
        return self._engine.revocations(limit=limit)


def _in_force(payload: bytes) -> dict[str, Any]:
    """What a stored change revokes, in the words of the API."""
    stored = orjson.loads(payload)
    words = {"digest": "digest", "token_id": "jti", "subject": "subject", "issuer": "issuer"}
    revoked = {word: stored[key] for key, word in words.items() if key in stored}
    if "issued_before_us" in stored:
        revoked["issued_before"] = rfc3339(stored["issued_before_us"])
    return revoked
