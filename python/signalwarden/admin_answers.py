"""What every call of the admin API shares: why one is refused, who calls, and how its body is read and answered."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, cast

import orjson
from fastapi import Request, Response

from signalwarden.doors import PEER_CHAIN
from signalwarden.errors import (
    BadInputError,
    CallRefusedError,
    KeysError,
    LogError,
    RateLimitedError,
    StateError,
)
from signalwarden.services import Client

__all__ = [
    "DEFAULT_LISTED",
    "MAX_BODY_BYTES",
    "MAX_LISTED",
    "STILL_MAY",
    "AdminReason",
    "Refused",
    "bounded",
    "bounded_body",
    "certificate_of",
    "client_of",
    "fields",
    "json_answer",
    "only",
    "refusing",
]

# The core takes 1,000 signals a batch of at most 4 KiB each; a real batch is a tenth of that. etcd and the
# Kubernetes API server refuse requests from 1.5 and 3 MiB on.
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
# Most signals in one answer of GET /v1/signals, and how many without `limit`.
MAX_LISTED: Final = 1_000
DEFAULT_LISTED: Final = 100


STILL_MAY: Final = "still_may"
"""Where a call that goes on for long finds in `request.state` whether its client may still make it."""


class AdminReason(Enum):
    """Every reason that the admin API gives for a refusal: code, HTTP status, sentence. Closed.

    A status of 0 is one of a single signal in a batch alone: the batch is answered with 200, the signal stands in
    `rejected`. `malformed` and `too_large` are said of both.
    """

    # Of a whole call.
    TOKEN_MISSING = ("token_missing", 401, "this call needs a bearer token or a client certificate")
    TOKEN_REFUSED = ("token_refused", 401, "the token is unknown, has expired, or is not this certificate's")
    CERTIFICATE_REFUSED = ("certificate_refused", 401, "the certificate is no client's, or no longer good")
    RIGHT_MISSING = ("right_missing", 403, "the client may not make this call")
    MALFORMED = ("malformed", 400, "the request can't be read")
    TOO_LARGE = ("too_large", 413, "the body is too large")
    NOT_FOUND = ("not_found", 404, "there is no such call")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "the call takes another method")
    CONFIGURATION_REFUSED = (
        "configuration_refused",
        422,
        "the directory has errors, the last good one goes on",
    )
    PUBLISHER_UNKNOWN = ("publisher_unknown", 404, "no contract names this publisher")
    NOT_KEPT = ("not_kept", 503, "the signals can't be kept, so none was taken")
    REVOCATIONS_FULL = ("revocations_full", 409, "as many revocations are in force as are held")
    INTERNAL = ("internal", 500, "the server failed, its log says how")
    RATE_LIMITED = ("rate_limited", 429, "too much at once, so none of it was taken")
    TASK_UNKNOWN = ("task_unknown", 404, "there is no such task")
    TASK_ENDED = ("task_ended", 409, "the task has ended")
    WORKFLOW_NOT_APPROVED = ("workflow_not_approved", 403, "the workflow is not approved")
    NOT_YOURS = ("not_yours", 403, "only the creator or the task's principal may do this")
    DELEGATION_WIDENS = ("delegation_widens", 403, "a delegated task may do no more than its parent")
    TOO_MANY_TASKS = ("too_many_tasks", 429, "as many tasks are live as are held")
    POLICY_REFUSED = ("policy_refused", 403, "the policies do not allow it")
    APPROVAL_UNKNOWN = ("approval_unknown", 404, "there is no such question")
    APPROVAL_ENDED = ("approval_ended", 409, "the question is answered, used or expired")
    OWN_APPROVAL = (
        "own_approval",
        403,
        "who asks, or set the task up, does not answer: it takes another one",
    )
    ALREADY_GIVEN = ("already_given", 409, "this client has approved it already: it takes another one")
    SAME_PERSON = ("same_person", 403, "an override takes two: another client must confirm it")
    TOO_MANY_PROPOSALS = ("too_many_proposals", 429, "as many overrides wait for a second client as are held")
    DECISION_UNKNOWN = ("decision_unknown", 404, "no record of this id is kept")
    TOO_MANY_STREAMS = ("too_many_streams", 429, "as many streams are open as are served")
    LOG_UNREADABLE = ("log_unreadable", 500, "the files of the log can't be read")
    SUBJECT_REFUSED = ("subject_refused", 403, "the client may not ask about this subject")
    NOT_OFFERED = ("not_offered", 501, "this server does not offer the call")
    NOT_READY = ("not_ready", 503, "no configuration is loaded, or the server is stopping")
    LOG_UNAVAILABLE = ("log_unavailable", 503, "no record can be written, so nothing is decided")
    # Of one signal in a batch: the core's table, whose sentences stand there.
    UNKNOWN_SIGNAL = ("unknown_signal", 0, "no contract in the register has this name")
    NOT_PUSHED = ("not_pushed", 0, "the contract's values do not come from a publisher")
    WRONG_PUBLISHER = ("wrong_publisher", 0, "the contract names another publisher")
    PUBLISHER_DISABLED = ("publisher_disabled", 0, "the publisher, or this signal of it, is switched off")
    BAD_SUBJECT = ("bad_subject", 0, "the subject is not of the form that the contract asks for")
    WRONG_TYPE = ("wrong_type", 0, "the value is not of the contract's type")
    FUTURE = ("future", 0, "the value was observed later than now")
    OLDER = ("older", 0, "a newer value is already known")
    TOO_MANY = ("too_many", 0, "the store is full and takes no new subjects")

    @property
    def code(self) -> str:
        """As it stands in answers."""
        return self.value[0]

    @property
    def status(self) -> int:
        """HTTP status of a problem document; 0 if there is none."""
        return self.value[1]

    @property
    def sentence(self) -> str:
        """For people."""
        return self.value[2]


CODES: Final = {reason.code: reason for reason in AdminReason}


class Refused(Exception):
    """A call that is refused; becomes the problem document."""

    def __init__(
        self,
        reason: AdminReason,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.detail = detail or reason.sentence
        self.headers = dict(headers or {})
        self.more = more


RETRY: Final = {429, 503}
"""Statuses after which the same call may succeed a moment later."""


@contextmanager
def refusing() -> Iterator[None]:
    """Makes problem documents of what a desk raises."""
    try:
        yield
    except CallRefusedError as error:
        reason = CODES[error.code]
        wait = {"retry-after": "1"} if reason.status in RETRY else {}
        # `reason` is ours: the one of the decision goes beside it.
        more = {"decision_reason" if key == "reason" else key: value for key, value in error.more.items()}
        raise Refused(reason, error.detail, headers=wait, **more) from error
    except BadInputError as error:
        raise Refused(AdminReason.MALFORMED, str(error)) from error
    except LogError as error:
        raise Refused(AdminReason.LOG_UNREADABLE, str(error)) from error
    except RateLimitedError as error:
        wait = {"retry-after": str(error.retry_after_s)}
        raise Refused(AdminReason.RATE_LIMITED, str(error), headers=wait) from error
    except (KeysError, StateError) as error:
        raise Refused(AdminReason.NOT_KEPT, str(error), headers={"retry-after": "1"}) from error


# ---- reading and answering ------------------------------------------------------------------------------


def client_of(request: Request) -> Client:
    return cast("Client", request.state.client)


def certificate_of(request: Request) -> str | None:
    """Hex SHA-256 over the DER of the client's own certificate, which was verified when it was let in."""
    chain: bytes = getattr(request.state, PEER_CHAIN, b"")
    if not chain:
        return None
    # In memory only where a client shows a certificate.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    leaf = x509.load_pem_x509_certificates(chain)[0]
    return hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()


def only(request: Request, *known: str) -> None:
    """Refuses a misspelt parameter, which would otherwise silently mean "all"."""
    names = [name for name, _ in request.query_params.multi_items()]
    if set(names) - set(known) or len(names) != len(set(names)):
        raise Refused(
            AdminReason.MALFORMED,
            f"expected {' and '.join(f'`{name}`' for name in known)}, each once at most",
        )


def fields(body: bytes, *names: str) -> dict[str, str]:
    """A JSON object of exactly these texts."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or {*content} != {*names} or not all(map(_is_text, content.values())):
        expected = ", ".join(f'"{name}"' for name in names)
        raise Refused(AdminReason.MALFORMED, f"expected an object of {expected}, each a text")
    return content


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def json_answer(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/json")


def bounded(most: int) -> Callable[[Request], Awaitable[bytes]]:
    """Reads a body, never more of it in memory than `most` bytes, whatever Content-Length says."""

    async def body_of(request: Request) -> bytes:
        too_large = Refused(
            AdminReason.TOO_LARGE, f"the body has more than {most} bytes", headers={"connection": "close"}
        )
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > most:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            if len(body) + len(chunk) > most:
                raise too_large
            body += chunk
        return bytes(body)

    return body_of


bounded_body: Final = bounded(MAX_BODY_BYTES)
"""Of most calls."""
