"""Answers other enforcement points (OpenID AuthZEN): who may ask about whom, how fast, and what is said back. What the
answer is, the core says, in the way in which it answers Envoy.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import _core
from signalwarden.authzen_request import (
    EVALUATION,
    EVALUATIONS,
    Batch,
    Faulty,
    Question,
    evaluation,
    evaluations,
)
from signalwarden.authzen_settings import may_ask_about
from signalwarden.errors import CallRefusedError
from signalwarden.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from signalwarden.authzen_settings import AuthzenSettings
    from signalwarden.services import Client

__all__ = ["QUESTIONS_A_SECOND", "SUBJECT_REFUSED", "Authzen"]

QUESTIONS_A_SECOND: Final = 2_000
"""Of one client: more than one core of a machine answers over HTTP. Whoever asks more often asks as Envoy does."""
SUBJECT_REFUSED: Final = "subject_refused"
LOG_UNAVAILABLE: Final = "log_unavailable"
NOT_READY: Final = "not_ready"
NO_ANSWER: Final = (LOG_UNAVAILABLE, NOT_READY)
"""Reasons that are none: nothing was decided."""


class Authzen:
    """The questions of a running app. Thread-safe."""

    def __init__(
        self,
        engine: _core.Engine,
        *,
        settings: Callable[[], AuthzenSettings],
        refused: Callable[[Client, str], None],
        clock: Callable[[], int],
    ) -> None:
        """`settings`: of the directory in force. `refused` writes down that a client asked about somebody whom its
        entry does not name."""
        self._engine = engine
        self._settings = settings
        self._refused = refused
        self._clock = clock
        self._rates = Rates(QUESTIONS_A_SECOND, deed=("asks", "questions"))
        self._sentences = {code: sentence for code, _, _, _, sentence in _core.reasons()}
        self._tally = threading.Lock()
        self._counts = {"authzen_permits": 0, "authzen_denials": 0, "authzen_refused": 0}

    def evaluation(
        self, client: Client, body: bytes, *, certificate: str | None, request_id: str | None
    ) -> bytes:
        """Body of POST /access/v1/evaluation in, JSON `{"decision", "context"}` out, after its record was accepted.
        `certificate`: hex SHA-256 of the client's own; `request_id`: its own id of the call. Raises BadInputError,
        CallRefusedError, RateLimitedError."""
        question = evaluation(body)
        self._rates.take(client.id, 1)
        return orjson.dumps(self._single(client, question, EVALUATION, certificate, request_id))

    def evaluations(
        self, client: Client, body: bytes, *, certificate: str | None, request_id: str | None
    ) -> bytes:
        """Body of POST /access/v1/evaluations in, JSON `{"evaluations": […]}` out; as `evaluation` where there is no
        list of them. Raises as `evaluation` does for what is wrong with the whole; what is wrong with one is its
        answer."""
        asked = evaluations(body)
        if isinstance(asked, Question):
            self._rates.take(client.id, 1)
            return orjson.dumps(self._single(client, asked, EVALUATIONS, certificate, request_id))
        self._rates.take(client.id, len(asked.questions))
        return orjson.dumps({"evaluations": self._several(client, asked, certificate, request_id)})

    def metadata(self) -> bytes | None:
        """JSON of GET /.well-known/authzen-configuration; None where the settings name no address. That of the request
        is never taken: whoever sends it could lead others elsewhere. What there is none of is left out (section 9.2.2
        of the specification): endpoints of searches, capabilities, a signature."""
        base = self._settings().policy_decision_point
        if base is None:
            return None
        return orjson.dumps(
            {
                "policy_decision_point": base,
                "access_evaluation_endpoint": base + EVALUATION,
                "access_evaluations_endpoint": base + EVALUATIONS,
            }
        )

    def numbers(self) -> Mapping[str, float]:
        """Counts since the start, by name."""
        with self._tally:
            return dict(self._counts)

    # ------------------------------------------------------------ asking

    def _single(
        self,
        client: Client,
        question: Question,
        path: str,
        certificate: str | None,
        request_id: str | None,
    ) -> dict[str, Any]:
        told = self._ask(client, question, path, certificate, request_id)
        if _undecided(told):
            raise CallRefusedError(told.reason, self._sentences[told.reason])
        return self._answer(told)

    def _several(
        self, client: Client, batch: Batch, certificate: str | None, request_id: str | None
    ) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for question in batch.questions:
            answer = self._one(client, question, certificate, request_id)
            answers.append(answer)
            if batch.ends_with(allowed=answer["decision"]):
                break
        return answers

    def _one(
        self, client: Client, question: Question | Faulty, certificate: str | None, request_id: str | None
    ) -> dict[str, Any]:
        """The answer to one of several: fails closed, and takes no other with it (section 7.2.1)."""
        if isinstance(question, Faulty):
            return _error(400, question.why)
        try:
            told = self._ask(client, question, EVALUATIONS, certificate, request_id)
        except CallRefusedError as error:
            return _error(403, error.detail)
        if _undecided(told):
            return _error(503, self._sentences[told.reason])
        return self._answer(told)

    def _ask(
        self,
        client: Client,
        question: Question,
        path: str,
        certificate: str | None,
        request_id: str | None,
    ) -> _core.Told:
        subject = question.subject["id"]
        if not may_ask_about(client.id, client.subjects, subject):
            # INVARIANT: who may ask does not thereby learn about everyone, nor speak for them.
            self._count("authzen_refused")
            self._refused(client, "it asked about a workload that its `subjects` do not name")
            raise CallRefusedError(SUBJECT_REFUSED, "the client may not ask about this subject")
        told = self._engine.inquire(
            question.for_core(path, request_id),
            client=client.id,
            certificate=certificate,
            now_us=self._clock(),
        )
        self._count("authzen_permits" if told.allowed else "authzen_denials")
        return told

    def _answer(self, told: _core.Told) -> dict[str, Any]:
        """Never a signal's value. `reason_admin` is for administrators, as in the example of section 5.5.2.1."""
        return {
            "decision": told.allowed,
            "context": {
                "reason": told.reason,
                "reason_admin": {"en": self._sentences[told.reason]},
                "decision_id": told.decision_id,
            },
        }

    def _count(self, name: str) -> None:
        with self._tally:
            self._counts[name] += 1


def _undecided(told: _core.Told) -> bool:
    """Whether nothing was decided."""
    return told.reason in NO_ANSWER and not told.allowed


def _error(status: int, message: str) -> dict[str, Any]:
    return {"decision": False, "context": {"error": {"status": status, "message": message}}}
