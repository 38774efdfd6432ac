"""Locust users that ask straight at the check port, as Envoy asks, with bytes that were serialised beforehand.

    make bench-locust PROFILE=spike           starts a server and runs this
    locust -f bench/locustfile.py --host grpc://127.0.0.1:9191      (by hand, against a server of bench/directory.py)

Profiles, reasons and what else happens meanwhile: `locust_stage.py`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import grpc
import grpc.experimental.gevent  # type: ignore[import-not-found]  # not in its stubs
from locust import User, task

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # locust puts this file's own folder there

from bench.directory import allowed_request, denied_request
from bench.load import REASON
from bench.locust_stage import HOST, NO_REASON, Operator, Profile, Publisher, judged, requested

__all__ = ["Envoy", "Operator", "Profile", "Publisher"]

grpc.experimental.gevent.init_gevent()

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
TIMEOUT_S: Final = 5.0
ALLOWS_FOR_A_DENY: Final = 9
REQUESTS: Final = {"allow": allowed_request(), "deny": denied_request()}
EXPECTED: Final = {"allow": "allowed", "deny": "policy_denied"}


class Envoy(User):
    """One connection's worth of Envoy: a call, its answer, the next call."""

    host = HOST

    def on_start(self) -> None:
        """A channel of its own, as each worker of Envoy has."""
        target = str(self.host).removeprefix("grpc://")
        self._channel = grpc.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1),))
        self._ask = self._channel.unary_unary(METHOD, None, None)

    def on_stop(self) -> None:
        """Lets the channel go."""
        self._channel.close()

    @task(ALLOWS_FOR_A_DENY)
    def allow(self) -> None:
        """A transfer that is allowed."""
        self._call("allow")

    @task(1)
    def deny(self) -> None:
        """A transfer that a policy forbids."""
        self._call("deny")

    def _call(self, name: str) -> None:
        begun = time.perf_counter()
        error: Exception | None = None
        answer = b""
        try:
            answer = self._ask(REQUESTS[name], timeout=TIMEOUT_S)
        except grpc.RpcError as failure:
            error = failure
        took_ms = (time.perf_counter() - begun) * 1e3
        if error is None:
            found = REASON.search(answer)
            error = judged(found[1].decode() if found else NO_REASON, EXPECTED[name])
        requested.fire(
            request_type="Check",
            name=name,
            response_time=took_ms,
            response_length=len(answer),
            exception=error,
            context={},
        )
