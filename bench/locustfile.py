"""The load of `make bench`: locust users that ask as Envoy asks, with bytes that were serialised beforehand.

    locust -f bench/locustfile.py --host grpc://127.0.0.1:9191      (by hand, against a server of bench/directory.py)

Locust's own figures come from its `request` event. What was decided comes from an event of ours, `decided`, one for
each answer; with SIGNALWARDEN_BENCH_OUT=FILE both are written there as JSON at the end.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.experimental.gevent  # type: ignore[import-not-found]  # not in its stubs
from locust import User, events, task
from locust.event import EventHook

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # locust puts this file's own folder there

from bench.directory import allowed_request, denied_request
from bench.load import REASON

grpc.experimental.gevent.init_gevent()

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
TIMEOUT_S: Final = 5.0
ALLOWS_FOR_A_DENY: Final = 9
OUT: Final = "SIGNALWARDEN_BENCH_OUT"
NO_REASON: Final = "(none)"
"""Of an answer without our metadata: the allow-all server's."""

REQUESTS: Final = {"allow": allowed_request(), "deny": denied_request()}
ALWAYS_ALLOWED: Final = os.environ.get("SIGNALWARDEN_BENCH_ALLOW_ALL") == "1"
EXPECTED: Final = {"allow": "allowed", "deny": "policy_denied"}

decided: Any = EventHook()  # type: ignore[no-untyped-call]
"""Fired for each answer, with `reason`."""
requested: Any = events.request
quitting: Any = events.quitting
reasons: Final[collections.Counter[str]] = collections.Counter()


def _count(reason: str, **_: object) -> None:
    reasons[reason] += 1


decided.add_listener(_count)


class Envoy(User):
    """One connection's worth of Envoy: a call, its answer, the next call."""

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
            reason = found[1].decode() if found else NO_REASON
            decided.fire(reason=reason)
            if reason != EXPECTED[name] and not ALWAYS_ALLOWED:
                error = AssertionError(f"answered {reason}, expected {EXPECTED[name]}")
        requested.fire(
            request_type="Check",
            name=name,
            response_time=took_ms,
            response_length=len(answer),
            exception=error,
            context={},
        )


def _write(environment: Any, **_: object) -> None:
    if OUT not in os.environ:
        return
    total = environment.stats.total
    figures = {
        "requests": total.num_requests,
        "failures": total.num_failures,
        "rps": total.total_rps,
        "p50_ms": total.get_response_time_percentile(0.50),
        "p95_ms": total.get_response_time_percentile(0.95),
        "p99_ms": total.get_response_time_percentile(0.99),
        "reasons": dict(reasons),
        "errors": [str(entry.error) for entry in environment.stats.errors.values()],
    }
    Path(os.environ[OUT]).write_text(json.dumps(figures), encoding="utf-8")


quitting.add_listener(_write)
