"""The native front door: HTTP/2, gRPC and the decision in Rust, owned and controlled here.

A call whose answer the core has at once never enters the interpreter. What comes here, over a bounded queue: calls with
tokens that nobody knows yet, decisions that change something that must be kept first, and, with mutual TLS, the
question whether a client may ask: once a second and connection, and again after every reload.

What can be seen of calls that never reach a decision (I4): one whose message does not come whole (too large, broken
off, too late) or that is one too many is counted as *undelivered*, a call of an unknown method as *unknown*, each in
the moment in which it ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from signalwarden import _core
from signalwarden.config import Address
from signalwarden.doors import may_be_plain, numeric, private_socket
from signalwarden.errors import BadInputError, ServerError
from signalwarden.files import why
from signalwarden.front import CheckTls, Refusal, Refusals, Unreached, may_ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalwarden.mtls import Pems

__all__ = ["NativeCounts", "NativeDoor", "threads_for"]

logger = logging.getLogger("signalwarden")

WAIT_MS: Final = 500
"""How long the desk waits for the next call before it looks whether the door has closed."""
KEEPERS: Final = 8
"""Threads for decisions that change something: those that wait for the disk share one write."""
ROTATION_S: Final = 1.0
"""How often our certificate is looked at: a new one counts from the next connection on."""
JOIN_S: Final = 5.0


def threads_for(threads: int | None) -> int:
    """Threads that decide: one for each core that this process may use."""
    if threads is not None:
        return threads
    with contextlib.suppress(AttributeError, OSError):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Concluding(Protocol):
    """Whoever answers what the core can't alone: `answering.Answering`."""

    def conclude(self, request: bytes, found: _core.Pending | _core.Held) -> bytes:
        """Total: every call gets a CheckResponse."""


class NativeCounts:
    """Calls that never reached a decision, counted in the door."""

    def __init__(self, native: _core.NativeFront) -> None:
        self._native = native
        self.refused = Refusals()
        """Of clients that may not ask, each as it was judged."""

    def settle(self) -> Unreached:
        """So far. Exact."""
        return Unreached(*self._native.counts()[:3])

    @property
    def refusals(self) -> Refusal | None:
        """See front.Counts. A call of a client that was judged a moment ago counts, too."""
        last = self.refused.last
        again = self._native.counts()[3]
        return Refusal(last.count + again, last.client, last.detail) if last is not None else None


class NativeDoor:
    """The check address: Authorization and health."""

    def __init__(
        self,
        engine: _core.Engine,
        concluding: Concluding,
        address: Address,
        *,
        workers: int,
        threads: int | None = None,
        tls: CheckTls | None = None,
    ) -> None:
        """`workers`: threads of the interpreter for calls that come here. Raises ServerError."""
        may_be_plain(address, tls)
        self._concluding = concluding
        self._tls = tls
        self._shown = tls.certificates.pems() if tls is not None else None
        self._native = _opened(engine, numeric(address), threads_for(threads), self._shown)
        port = self._native.port
        self.address = address if address.path is not None else Address(numeric(address).host, port)
        self.counts = NativeCounts(self._native)
        self.serving = False
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=workers + KEEPERS, thread_name_prefix="check-desk")
        self._desk = threading.Thread(target=self._serve_desk, name="check-desk", daemon=True)
        self._rotation = threading.Thread(target=self._rotate, name="check-tls", daemon=True)

    def start(self) -> None:
        """Answers from now on."""
        self._desk.start()
        if self._tls is not None:
            self._rotation.start()
        self._native.start()
        self.serving = True

    def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, lets calls in flight end for `grace_s`, then ends. May be called twice."""
        self.serving = False
        self._native.stop(grace_ms=int(grace_s * 1000))  # the desk still answers
        self._stopping.set()
        for thread in (self._desk, self._rotation):
            if thread.ident is not None:
                thread.join(JOIN_S)
        self._pool.shutdown(wait=False)
        if self.address.path is not None:
            Path(self.address.path).unlink(missing_ok=True)

    def judge_anew(self) -> None:
        """Whoever may ask may have changed."""
        self._native.judge_anew()

    # ------------------------------------------------------------ what the core can't answer alone

    def _serve_desk(self) -> None:
        while not self._stopping.is_set():
            waiting = self._native.take(wait_ms=WAIT_MS)
            if waiting is not None:
                self._pool.submit(self._attend, waiting)

    def _attend(self, waiting: _core.Ticket | _core.Asker) -> None:
        """What is not answered here is denied by the core once it is let go."""
        try:
            if isinstance(waiting, _core.Ticket):
                found = waiting.found()
                if found is not None:
                    waiting.answer(self._concluding.conclude(waiting.request, found))
            else:
                waiting.answer(self._may_ask(waiting.chain))
        except Exception:
            logger.exception("a call of the native front door could not be answered, so it is denied")

    def _may_ask(self, chain: list[bytes]) -> bool:
        if self._tls is None:
            return False
        peers = self._tls.peers
        pem = "".join(map(ssl.DER_cert_to_PEM_cert, chain)).encode()
        return may_ask(self._tls, self.counts.refused, lambda: peers.of_pem(pem))

    # ------------------------------------------------------------ what handshakes show

    def _rotate(self) -> None:
        while not self._stopping.wait(ROTATION_S):
            if self._tls is None:
                return
            pems = self._tls.certificates.pems()
            if pems == self._shown:
                continue
            self._shown = pems
            try:
                self._native.set_tls(pems.cert, pems.key, pems.client_ca)
            except BadInputError as error:
                logger.error("the certificates of the check address go on as they were: %s", error)
            self.judge_anew()


@contextlib.contextmanager
def _socket_of(address: Address) -> Iterator[None]:
    if address.path is None:
        yield
    else:
        with private_socket(address.path):
            yield


def _opened(engine: _core.Engine, address: Address, threads: int, tls: Pems | None) -> _core.NativeFront:
    shown = (tls.cert, tls.key, tls.client_ca) if tls is not None else None
    try:
        with _socket_of(address):
            if address.path is not None:
                return _core.NativeFront(engine, path=address.path, threads=threads)
            return _core.NativeFront(engine, host=address.host, port=address.port, threads=threads, tls=shown)
    except OSError as error:
        raise ServerError(f"the address `{address}` can't be opened: {why(error)}") from error
    except BadInputError as error:
        raise ServerError(f"the address `{address}` can't be opened: {error}") from error
