"""Calls of the admin API about decisions: listed, one by its id, and followed as server-sent events (WHATWG HTML,
section 9.2)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final, NamedTuple, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import orjson
from fastapi import Path, Query, Request, Response
from starlette.types import Message, Receive, Scope, Send

from signalwarden.admin_answers import DEFAULT_LISTED, MAX_LISTED, STILL_MAY, json_answer, only, refusing
from signalwarden.doors import ABORT
from signalwarden.errors import LogError
from signalwarden.services import DecisionStream, Services

__all__ = ["endpoints"]

_log = logging.getLogger("signalwarden.admin")

FILTERS: Final = ("since", "outcome", "reason", "principal", "action")
Text = Annotated[str | None, Query(max_length=2_048)]
POLL_S: Final = 0.25
"""Records are on disk within half a second of their answer: this adds half of itself."""
HEARTBEAT_S: Final = 10.0
"""Below the 30 s and more after which proxies cut what is silent."""
RECHECK_S: Final = 2.0
"""How long a stream may go on after its client's right has ended."""
SEND_S: Final = 15.0
"""For a client to read what it was sent: about 200 KiB, of which 64 lie in our hands and the rest in the system's."""
RETRY_MS: Final = 2_000
"""When a client comes again by itself."""
LOOKERS: Final = 4
"""Threads that look into the log for streams: never those that publishers and operators wait for."""


def endpoints(services: Services) -> dict[tuple[str, str], Callable[..., Any]]:
    """By method and path, as in `admin.CALLS`."""
    limiter: list[anyio.CapacityLimiter] = []

    def looking() -> anyio.CapacityLimiter:
        if not limiter:
            limiter.append(anyio.CapacityLimiter(LOOKERS))  # of the event loop that serves
        return limiter[0]

    def listing(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = DEFAULT_LISTED,
        after: Text = None,
    ) -> Response:
        only(request, "limit", "after", *FILTERS)
        with refusing():
            return json_answer(services.decisions.listing(_filters(request), after, limit))

    def show(request: Request, which: Annotated[str, Path(alias="id", max_length=64)]) -> Response:
        only(request)
        with refusing():
            return json_answer(services.decisions.show(which))

    def stream(request: Request) -> Response:
        only(request, "after", *FILTERS)
        # A browser that comes again says in a header where it was; it can't change the address.
        after = request.headers.get("last-event-id") or request.query_params.get("after")
        with refusing():
            found = services.decisions.follow(_filters(request), after)
        return _EventStream(
            found, looking(), getattr(request.state, STILL_MAY), services.decisions.count_slow
        )

    return {
        ("GET", "/v1/decisions"): listing,
        ("GET", "/v1/decisions/stream"): stream,
        ("GET", "/v1/decisions/{id}"): show,
    }


def _filters(request: Request) -> dict[str, str]:
    return {key: value for key, value in request.query_params.items() if key in FILTERS}


class _End(NamedTuple):
    """Why a stream ends, for its client."""

    reason: str
    detail: str


STOPPING: Final = _End("stopping", "the server stops")
RIGHT_ENDED: Final = _End("right_ended", "the client may not read any more")
TOO_SLOW: Final = _End("too_slow", "the client does not keep up: come again with the last id")
UNREADABLE: Final = _End("unreadable", "the log can't be read, the server's own log says why")


class _EventStream(Response):
    """The answer: events until its client goes, the server stops, the client's right ends or it does not keep up."""

    media_type = "text/event-stream"

    def __init__(
        self,
        stream: DecisionStream,
        limiter: anyio.CapacityLimiter,
        still_may: Callable[[], bool],
        count_slow: Callable[[], None],
    ) -> None:
        super().__init__(None, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream
        self._limiter = limiter
        self._still_may = still_may
        self._count_slow = count_slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_gone, receive, tasks.cancel_scope)
                await self._run(scope, send)
                tasks.cancel_scope.cancel()
        finally:
            self._stream.close()

    async def _run(self, scope: Scope, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            async for piece in self._events():
                with anyio.fail_after(SEND_S):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            with anyio.fail_after(SEND_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # It reads nothing, so it can't be told: what lies in our hands for it goes with its connection.
            self._count_slow()
            abort = cast("dict[str, Any]", scope.get("state", {})).get(ABORT)
            if abort is not None:
                abort()
                await anyio.lowlevel.checkpoint()  # the door hears of it before this answer ends

    async def _events(self) -> AsyncIterator[bytes]:
        yield f"retry: {RETRY_MS}\n: decisions as they are written\n\n".encode()
        spoke = checked = time.monotonic()
        last: str | None = None
        while True:
            now = time.monotonic()
            if self._stream.ended.is_set():
                yield _ended(STOPPING, last)
                return
            if now - checked >= RECHECK_S:
                checked = now
                if not await self._thread(self._still_may):
                    yield _ended(RIGHT_ENDED, None)
                    return
            try:
                looked = await self._thread(self._stream.look)
            except LogError as error:
                _log.error("a stream of decisions ends: %s", error)
                yield _ended(UNREADABLE, last)
                return
            if looked.missed:
                yield _event("gap", {"detail": "records before this were deleted before they were read"})
            if looked.records:
                yield b"".join(map(_decision, looked.records))
            last = looked.last or last
            if looked.too_slow:
                self._count_slow()
                yield _ended(TOO_SLOW, last)
                return
            if looked.records or looked.missed:
                spoke = now
            elif now - spoke >= HEARTBEAT_S:
                spoke = now
                # An id without data: nothing is told, and where to go on from is known.
                yield b": alive\n" + (f"id: {last}\n" if last else "").encode() + b"\n"
            if looked.at_end:
                await anyio.sleep(POLL_S)

    async def _thread(self, do: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(do, limiter=self._limiter)


async def _gone(receive: Receive, running: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    running.cancel()


def _decision(record: tuple[str, bytes]) -> bytes:
    return b"id: " + record[0].encode() + b"\nevent: decision\ndata: " + record[1] + b"\n\n"


def _event(name: str, data: dict[str, str]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _ended(end: _End, last: str | None) -> bytes:
    # The id goes along: what was looked at and not wanted need not be looked at again.
    mark = f"id: {last}\n".encode() if last else b""
    return mark + _event("end", {"reason": end.reason, "detail": end.detail})
