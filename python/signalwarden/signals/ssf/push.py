"""SETs that a transmitter pushes (RFC 8935): from a request to the answer that the RFC asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from signalwarden.errors import KeySetError, StateError
from signalwarden.signals.ssf.set import ErrorCode, SetRefusedError
from signalwarden.signals.ssf.stream import Stream

__all__ = ["CONTENT_TYPE", "Answer", "refusal", "take_pushed", "too_many"]

CONTENT_TYPE: Final = "application/secevent+jwt"
RETRY_AFTER_S: Final = 5
"""When a transmitter may come again after 503: our disk or its keys may be back by then."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


ACCEPTED: Final = Answer(202, b"", {})
"""RFC 8935 section 2.2: an empty body."""


def refusal(code: ErrorCode, description: str, *, status: int = 400) -> Answer:
    """RFC 8935 section 2.3."""
    headers = {"content-type": "application/json", "content-language": "en"}
    return Answer(status, orjson.dumps({"err": code, "description": description}), headers)


def unavailable() -> Answer:
    """Nobody's mistake, or ours: the transmitter must keep the SET and send it again. No error code says that, and
    what exactly is missing, such as a path of ours, is not for a transmitter to know."""
    return _again(503, "the event can't be judged or kept just now, send it again later", RETRY_AFTER_S)


def too_many(description: str, retry_after_s: int) -> Answer:
    """More than is taken in so short a time."""
    return _again(429, description, retry_after_s)


def _again(status: int, description: str, retry_after_s: int) -> Answer:
    headers = {
        "content-type": "application/json",
        "content-language": "en",
        "retry-after": str(retry_after_s),
    }
    return Answer(status, orjson.dumps({"description": description}), headers)


def take_pushed(stream: Stream | None, content_type: str | None, body: bytes) -> Answer:
    """One request of an authenticated transmitter; `stream` is None if no such feed is pushed."""
    if stream is None:
        return refusal(ErrorCode.INVALID_REQUEST, "no feed of this name is pushed", status=404)
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind != CONTENT_TYPE:
        return refusal(ErrorCode.INVALID_REQUEST, f"expected a body of type `{CONTENT_TYPE}`")
    try:
        stream.take(body)
    except SetRefusedError as refused:
        return refusal(refused.code, str(refused))
    except (KeySetError, StateError):
        return unavailable()
    return ACCEPTED
