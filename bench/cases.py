"""What is asked: requests whose answers are known, as a `CheckRequest` and as the request that makes Envoy send one.

`CASES` is asked of every server before it is timed, so that what is timed gives the right answers. `load_lines` are the
lines of the load's file: nine allowed transfers for one that a policy forbids, over many accounts.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench import directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CASES", "DENIED_SHARE", "Case", "load_lines", "timed"]

HOST: Final = "payments.prod.example"
STRANGER: Final = "spiffe://prod.example/ns/payments/sa/stranger"
ACCOUNTS: Final = 200
"""Distinct requests in the load's file: one alone would keep every cache warmer than a gateway's traffic does."""
ALLOWS_FOR_A_DENY: Final = 9
DENIED_SHARE: Final = 1 / (ALLOWS_FOR_A_DENY + 1)


@dataclass(frozen=True, slots=True)
class Case:
    """One request and what becomes of it."""

    name: str
    path: str
    allow: bool
    reason: str
    """signalwarden's own; a peer's denial has none that could be compared."""
    principal: str = directory.PRINCIPAL
    method: str = "POST"
    host: str = HOST
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def check_request(self) -> bytes:
        """The `CheckRequest` of Envoy, serialised."""
        return directory.transfer(
            self.path, principal=self.principal, method=self.method, host=self.host, more=self.headers
        )

    @property
    def http_headers(self) -> dict[str, str]:
        """Headers of the request that a client sends to Envoy. There is no TLS, so its identity is in XFCC."""
        return {
            "host": self.host,
            "user-agent": "transfer-agent/2.4",
            "content-type": "application/json",
            "accept": "application/json",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "idempotency-key": "7a1f",
            "x-forwarded-client-cert": f"URI={self.principal}",
            "content-length": "0",
            **self.headers,
        }

    @property
    def http_head(self) -> str:
        """That request by HTTP/1.1, whole: it has no body."""
        fields = (f"{name}: {value}" for name, value in self.http_headers.items())
        lines = [f"{self.method} {self.path} HTTP/1.1", *fields]
        return "\r\n".join(lines) + "\r\n\r\n"


def _transfer(account: int, amount: int | None) -> str:
    return f"/v1/accounts/{account}/transfers" + ("" if amount is None else f"?amount={amount}")


CASES: Final = (
    Case("allowed", _transfer(42, 1_250), True, "allowed"),
    Case("no amount", _transfer(42, None), True, "allowed"),
    Case("at the limit", _transfer(42, directory.FORBIDDEN_AMOUNT), True, "allowed"),
    Case("over the limit", _transfer(42, directory.FORBIDDEN_AMOUNT + 1), False, "policy_denied"),
    Case("a stranger", _transfer(42, 1_250), False, "signal_unavailable", principal=STRANGER),
    Case("another path", "/v1/accounts/42", False, "route_unknown"),
    Case("another method", _transfer(42, 1_250), False, "route_unknown", method="GET"),
    Case("another host", _transfer(42, 1_250), False, "route_unknown", host="things.prod.example"),
)


def timed(accounts: int = ACCOUNTS) -> Iterator[Case]:
    """The requests of the load, in their order."""
    for number in range(accounts):
        denied = number % (ALLOWS_FOR_A_DENY + 1) == ALLOWS_FOR_A_DENY
        amount = directory.FORBIDDEN_AMOUNT + 1 + number if denied else 100 + number
        yield Case(
            f"account {number}",
            _transfer(1_000 + number, amount),
            not denied,
            "policy_denied" if denied else "allowed",
            headers={"x-request-id": f"6f1c2a52-8a4e-4f0b-9d7c-{number:012x}"},
        )


def load_lines(cases: Iterator[Case] | None = None, *, reasons: bool, all_allowed: bool = False) -> str:
    """The file of `load`: a JSON object a line. `reasons`: the answers must name signalwarden's, too.

    `all_allowed`: for a server that lets everything through.
    """
    lines = []
    for case in timed() if cases is None else cases:
        line: dict[str, object] = {
            "expect": "allow" if case.allow or all_allowed else "deny",
            "grpc": base64.b64encode(case.check_request).decode(),
            "http": case.http_head,
        }
        if reasons:
            line["reason"] = case.reason
        lines.append(json.dumps(line))
    return "\n".join(lines) + "\n"
