"""What all locust files share: profiles, reasons, users that publish and reload meanwhile, the figures at the end.

What was decided is an event of ours, `decided`, one for each answer with its reason. With SIGNALWARDEN_BENCH_OUT=FILE
the figures and the reasons are written there as JSON when locust ends. The other variables are those of `swarm.py`.
"""

from __future__ import annotations

import collections
import json
import os
from pathlib import Path
from typing import Any, Final

from locust import FastHttpUser, LoadTestShape, constant_pacing, events, task
from locust.event import EventHook

from bench import directory
from bench.profiles import CHURNING, PROFILES, RELOADING, users_at

__all__ = [
    "ALWAYS_ALLOWED",
    "HOST",
    "NO_REASON",
    "Operator",
    "Profile",
    "Publisher",
    "decided",
    "judged",
    "requested",
]

OUT: Final = "SIGNALWARDEN_BENCH_OUT"
PROFILE: Final = os.environ.get("SIGNALWARDEN_BENCH_PROFILE", "steady")
USERS: Final = int(os.environ.get("SIGNALWARDEN_BENCH_USERS", "8"))
SECONDS: Final = float(os.environ.get("SIGNALWARDEN_BENCH_SECONDS", "60"))
HOST: Final = os.environ.get("SIGNALWARDEN_BENCH_HOST") or None
"""Where the load goes. Not by `--host`, which would send those who publish and reload there, too."""
ADMIN: Final = os.environ.get("SIGNALWARDEN_BENCH_ADMIN", "")
"""`http://127.0.0.1:PORT`, where there is an admin address to publish to."""
TOKEN: Final = os.environ.get("SIGNALWARDEN_BENCH_TOKEN", "")
ALWAYS_ALLOWED: Final = os.environ.get("SIGNALWARDEN_BENCH_ALLOW_ALL") == "1"
"""The server lets everything through: it is locust's own ceiling that is measured."""
NO_REASON: Final = "(none)"
"""Of an answer that names none."""
CHURN_S, RELOAD_S = 0.05, 1.0

if PROFILE not in PROFILES:
    raise SystemExit(f"`{PROFILE}` is none of the profiles {', '.join(PROFILES)}")

decided: Any = EventHook()  # type: ignore[no-untyped-call]
"""Fired for each answer, with `reason`."""
requested: Any = events.request
quitting: Any = events.quitting
reasons: Final[collections.Counter[str]] = collections.Counter()


def _count(reason: str, **_: object) -> None:
    reasons[reason] += 1


decided.add_listener(_count)


def judged(reason: str, expected: str) -> Exception | None:
    """Fires `decided`; the failure if it is not the answer that was to come."""
    decided.fire(reason=reason)
    if reason == expected or ALWAYS_ALLOWED:
        return None
    return AssertionError(f"answered {reason}, expected {expected}")


class Profile(LoadTestShape):
    """The number of users over time. A file that wants it imports it."""

    def tick(self) -> tuple[int, float] | None:
        """Users and how many are started a second; None ends the run."""
        elapsed: float = self.get_run_time()  # type: ignore[no-untyped-call]
        users = users_at(PROFILE, elapsed, USERS, SECONDS)
        return None if users is None else (users + _helpers(), max(100.0, float(USERS)))


class _AdminUser(FastHttpUser):
    """Somebody at the admin address; the load goes elsewhere."""

    abstract = True
    host = ADMIN or None
    headers: Final = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


class Publisher(_AdminUser):
    """Tells all twelve signals of the principal anew, twenty times a second, with values that change no answer."""

    abstract = not (ADMIN and PROFILE in CHURNING)
    fixed_count = 1
    wait_time = constant_pacing(CHURN_S)

    @task
    def publish(self) -> None:
        """All must be accepted."""
        with self.client.post(
            "/v1/signals", data=directory.signals_body().decode(), headers=self.headers, catch_response=True
        ) as answer:
            if answer.status_code != 200 or b'"rejected":[]' not in answer.content.replace(b" ", b""):
                answer.failure(f"signals were refused with {answer.status_code}")


class Operator(_AdminUser):
    """Reloads the directory, once a second."""

    abstract = not (ADMIN and PROFILE in RELOADING)
    fixed_count = 1
    wait_time = constant_pacing(RELOAD_S)

    @task
    def reload(self) -> None:
        """It must be taken."""
        self.client.post("/v1/reload", headers=self.headers)


def _helpers() -> int:
    return sum(not user.abstract for user in (Publisher, Operator))


def _write(environment: Any, **_: object) -> None:
    if OUT not in os.environ:
        return
    total = environment.stats.total
    figures = {
        "profile": PROFILE,
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
