"""Every answer that any test sees is held against Envoy's rules, whatever the test itself looks at.

`start` is called once by `conftest.py`: from then on every answer of an engine in this process, and every answer
that a gRPC client of this process gets from a real decision point, is noted; an autouse fixture checks what a test
has seen when it ends. What a test double answers through a `FrontDoor` of ours is its own affair.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import grpc

from signalwarden import _core
from signalwarden.answering import Answering
from signalwarden.server import CHECK_METHOD, FrontDoor
from tests.envoy_rules import check_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Continuation = Callable[[grpc.ClientCallDetails, Any], Any]
    _Base = grpc.UnaryUnaryClientInterceptor[Any, Any]
else:
    _Base = grpc.UnaryUnaryClientInterceptor

_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_SAME_ID = b"00000000-0000-7000-8000-000000000000"


class Watch:
    """Answers that wait to be checked. They are told apart by all but the decision's id, so that ten thousand
    denials for one reason are checked once."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: set[bytes] = set()
        self._good: set[bytes] = set()
        self.seen = 0

    def note(self, answer: bytes) -> bytes:
        """Keeps an answer for `settle`; gives it back."""
        shape = _ID.sub(_SAME_ID, answer)
        with self._mutex:
            self.seen += 1
            if shape not in self._good:
                self._waiting.add(shape)
        return answer

    def settle(self) -> None:
        """Checks all that waits: in the caller's thread, after the fact, so that no test's timing changes."""
        with self._mutex:
            waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            check_answer(answer)
            self._good.add(answer)


class _Interceptor(_Base):
    """Notes the answers to Check."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        call = continuation(client_call_details, request)
        if client_call_details.method in (CHECK_METHOD, CHECK_METHOD.encode()):
            call.add_done_callback(self._done)
        return call

    def _done(self, call: Any) -> None:
        if call.code() == grpc.StatusCode.OK:
            self._watch.note(bytes(call.result()))


def start(watch: Watch) -> None:
    """Listens at the engine's ways out, and at gRPC clients."""
    doubles: set[str] = set()
    engine: Any = _core.Engine
    door: Any = FrontDoor
    check, validated, decide = engine.check, engine.validated, engine.decide
    make_door, open_channel = door.__init__, grpc.insecure_channel

    def watched_check(self: _core.Engine, request: bytes) -> bytes | _core.Pending:
        answer = check(self, request)
        return watch.note(answer) if isinstance(answer, bytes) else answer

    def watched_validated(self: _core.Engine, request: bytes, **tokens: Any) -> bytes:
        return watch.note(validated(self, request, **tokens))

    def watched_decide(self: _core.Engine, request: bytes, *, now_us: int) -> tuple[bytes, bytes]:
        answer, record = decide(self, request, now_us=now_us)
        return watch.note(answer), record

    def watched_door(self: FrontDoor, answering: Any, *args: Any, **options: Any) -> None:
        make_door(self, answering, *args, **options)
        if not isinstance(answering, Answering):
            doubles.add(_target(str(self.address)))

    def watched_channel(
        target: str, options: Sequence[tuple[str, Any]] | None = None, compression: Any = None
    ) -> grpc.Channel:
        channel = open_channel(target, options, compression)
        if _target(target) in doubles:
            return channel
        return grpc.intercept_channel(channel, _Interceptor(watch))

    engine.check, engine.validated, engine.decide = watched_check, watched_validated, watched_decide
    door.__init__ = watched_door
    grpc.insecure_channel = watched_channel


def _target(address: str) -> str:
    return address.replace("unix://", "unix:")
