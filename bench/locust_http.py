"""Locust users that ask the real Envoy by HTTP, as clients of a gateway do; Envoy asks signalwarden.

make bench-locust DOOR=http PROFILE=ramp      starts a server, Envoy (`through_envoy.py`) and this
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from locust import FastHttpUser, task

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # locust puts this file's own folder there

from bench import cases
from bench.locust_stage import HOST, NO_REASON, Operator, Profile, Publisher, judged

__all__ = ["Client", "Operator", "Profile", "Publisher"]

TIMEOUT_S: Final = 5.0
ALLOWED: Final = 200
NAMED: Final = {case.name: case for case in cases.CASES}


class Client(FastHttpUser):
    """A workload behind Envoy: a request, its answer, the next."""

    host = HOST
    connection_timeout = network_timeout = TIMEOUT_S

    @task(cases.ALLOWS_FOR_A_DENY)
    def allow(self) -> None:
        """A transfer that is allowed."""
        self._ask(NAMED["allowed"])

    @task(1)
    def deny(self) -> None:
        """A transfer that a policy forbids."""
        self._ask(NAMED["over the limit"])

    def _ask(self, case: cases.Case) -> None:
        headers = dict(case.http_headers)
        with self.client.request(
            case.method, case.path, name=case.name, headers=headers, catch_response=True
        ) as answer:
            if answer.status_code == ALLOWED:
                reason = "allowed"
            elif answer.status_code == 0:
                answer.failure(str(answer.error))
                return
            else:
                reason = _reason(answer.content)
            failure = judged(reason, case.reason)
            if failure is None:
                answer.success()
            else:
                answer.failure(str(failure))


def _reason(body: bytes) -> str:
    """Of a denial, which is problem+json."""
    _, found, rest = body.partition(b'"reason":"')
    return rest.partition(b'"')[0].decode() if found else NO_REASON
