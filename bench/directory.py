"""The directory that is measured: one principal, 12 signals, N policies over many actions, 10 of them in play.

One action, `transfer.create`, is asked for. Its 10 policies, three permits and seven forbids, read each of the 12
signals and one argument of the query. The other policies belong to other actions, 10 to each, so they can't apply:
what they cost is what a big directory costs.

    python bench/directory.py DIR --policies 10000      makes one, to look at or to serve
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from signalwarden import request_json, starter
from signalwarden.decision_log import now_us, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "IN_PLAY",
    "PRINCIPAL",
    "PUBLISHER",
    "ROUTE",
    "SIGNALS",
    "Made",
    "allowed_request",
    "contract",
    "denied_request",
    "entities_json",
    "make",
    "policy",
    "settings_yaml",
    "signals_body",
    "transfer",
]

PRINCIPAL: Final = "spiffe://prod.example/ns/payments/sa/transfer-agent"
PUBLISHER: Final = "spiffe://prod.example/ns/signals/sa/publisher"
POLICIES: Final = 100
LOOPBACK: Final = "127.0.0.1:0"
A_FILE: Final = 10_000
"""Policies in one file: some 2 MB of the 8 that one may have."""
IN_PLAY: Final = 10
"""Policies of the action that is asked for, and of each other action."""

# name: (type, influence, the value that lets the principal in). Restricting ones are read twice, once as if
# withdrawn, so they cost more: a quarter of a register is a guess at what people write.
SIGNALS: Final[dict[str, tuple[str, str, object]]] = {
    "device_trust": ("long", "grant", 4),
    "posture": ("enum[ok, compromised]", "restrict", "ok"),
    "patch_age_days": ("long", "grant", 3),
    "attested": ("bool", "grant", True),
    "build_signed": ("bool", "grant", True),
    "region": ("string", "grant", "eu-central-1"),
    "zones": ("set", "grant", ["pci", "internal"]),
    "risk_score": ("long", "restrict", 12),
    "incident": ("bool", "restrict", False),
    "change_window": ("bool", "grant", True),
    "on_call": ("bool", "grant", True),
    "error_budget": ("decimal", "grant", "0.75"),
}
SPREAD: Final = ("device_trust", "attested", "on_call", "change_window")
"""Signals that the other actions read, one each, in turn."""

FORBIDDEN_AMOUNT: Final = 50_000

_CONDITIONS: Final = (
    ("permit", "{device_trust} >= 3 && {patch_age_days} <= 30 && {attested}"),
    ("permit", '{build_signed} && {region} == "eu-central-1" && {zones}.contains("pci")'),
    ("permit", '{change_window} && {on_call} && {error_budget}.greaterThan(decimal("0.1"))'),
    ("forbid", '{posture} == "compromised"'),
    ("forbid", "{risk_score} > 80"),
    ("forbid", "{incident}"),
    ("forbid", "{patch_age_days} > 90"),
    ("forbid", '{region} == "cn-north-1"'),
    ("forbid", "{device_trust} < 1"),
)


ROUTE: Final = """\
  - match: {host: "payments.*", method: POST, path: "/v1/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args: {query: {amount: "long?"}}
    system: payments
    tier: runtime
    sensitivity: medium
"""


@dataclass(frozen=True, slots=True)
class Made:
    """What `make` made: where it is, and the token with which its signals are published."""

    directory: Path
    publisher_token: str


def make(
    directory: Path,
    *,
    policies: int = POLICIES,
    influence: str = "default",
    front: str = "grpcio",
    plain: bool = False,
    threads: int | None = None,
    check: str = LOOPBACK,
) -> Made:
    """Writes the directory. Ports are the system's to choose. `threads`: of the native front door. `plain`:
    where Envoy has no peer, since nobody speaks TLS to it, the principal is that of XFCC."""
    if policies < IN_PLAY or policies % IN_PLAY:
        raise ValueError(f"policies come in tens: {policies} is not a multiple of {IN_PLAY}")
    token, digest = starter.new_token()
    others = [f"other.a{number:05d}" for number in range(policies // IN_PLAY - 1)]
    files = {
        "signalwarden.yaml": settings_yaml(
            digest, influence, front, plain=plain, threads=threads, check=check
        ),
        "routes.yaml": _routes(others),
        "signals.yaml": _register(others),
        "entities.cedarschema": "entity Workload { owner: String };\nentity Account;\nentity Thing;\n",
        "entities.json": entities_json(),
        "policies/transfers.cedar": "\n".join(_policies_in_play()),
        **_other_files(_other_policies(others, policies - IN_PLAY)),
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Made(directory, token)


def signals_body(subject: str = PRINCIPAL) -> bytes:
    """A body of POST /v1/signals: all twelve, observed now."""
    observed = rfc3339(now_us())
    signals = [
        {"name": name, "subject": subject, "value": value, "observed_at": observed}
        for name, (_, _, value) in SIGNALS.items()
    ]
    return json.dumps({"signals": signals}).encode()


def allowed_request(
    principal: str = PRINCIPAL,
    *,
    authorization: str | None = None,
    address: str = "10.1.2.3",
    headers: Mapping[str, str] | None = None,
    resource: str = "42/transfers",
) -> bytes:
    """A serialised CheckRequest as Envoy sends it: 12 headers, about 660 bytes. Its answer is `allowed`. With
    `authorization` it has one header more, and with `headers` those."""
    more = {**({} if authorization is None else {"authorization": authorization}), **(headers or {})}
    path = f"/v1/accounts/{resource}?amount=1250"
    return transfer(path, principal=principal, more=more, source=address)


def denied_request() -> bytes:
    """The same for an amount that a policy forbids: `policy_denied`."""
    return transfer(f"/v1/accounts/42/transfers?amount={FORBIDDEN_AMOUNT + 1}")


def transfer(
    path: str,
    *,
    principal: str = PRINCIPAL,
    method: str = "POST",
    host: str = "payments.prod.example",
    more: Mapping[str, str] | None = None,
    source: str = "10.1.2.3",
) -> bytes:
    """A serialised CheckRequest as Envoy sends it, for any request at all. `more`: headers beside the usual twelve."""
    headers = {
        ":method": method,
        ":scheme": "https",
        ":authority": host,
        ":path": path,
        "user-agent": "transfer-agent/2.4",
        "content-type": "application/json",
        "accept": "application/json",
        "x-forwarded-proto": "https",
        "x-request-id": "6f1c2a52-8a4e-4f0b-9d7c-3b1e5c0f9a21",
        "x-forwarded-for": "10.1.2.3",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "idempotency-key": "7a1f",
        **(more or {}),
    }
    address = {"socketAddress": {"address": source, "portValue": 41234}}
    peer = {"socketAddress": {"address": "10.1.2.4", "portValue": 8443}}
    http = {
        "id": "9214873650197341",
        "method": method,
        "scheme": "https",
        "host": host,
        "path": path,
        "protocol": "HTTP/2",
        "headers": headers,
        "size": "-1",
    }
    document = {
        "attributes": {
            "source": {"address": address, "principal": principal},
            "destination": {"address": peer},
            "request": {"time": "2026-11-24T10:00:00Z", "http": http},
        }
    }
    return request_json.to_bytes(json.dumps(document))


def settings_yaml(
    digest: str,
    influence: str,
    front: str,
    *,
    plain: bool = False,
    threads: int | None = None,
    check: str = LOOPBACK,
) -> str:
    """signalwarden.yaml, with the digest of the publisher's token."""
    expires = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    identity = "identity: {sources: [envoy_peer, xfcc]}\n" if plain else ""
    door = "" if front == "grpcio" else f", front: {front}"
    door += "" if threads is None else f", threads: {threads}"
    return f"""\
trust_domain: prod.example
listen: {{check: "{check}", admin: "127.0.0.1:0"{door}}}
{identity}clients:
  - {{id: "{PUBLISHER}", may: [publish, operate], token_sha256: "{digest}", expires: "{expires}"}}
decision_log: {{path: "var/decisions.jsonl", influence: {influence}}}
"""


def _routes(others: list[str]) -> str:
    routes = [
        f"""\
  - match: {{host: "things.*", method: GET, path: "/v1/{action}/{{thing}}"}}
    action: {action}
    resource: {{type: Thing, id: "{{thing}}"}}
    system: things
    tier: runtime
    sensitivity: low
"""
        for action in others
    ]
    return "".join(("routes:\n", ROUTE, *routes, "default: deny\n"))


def _register(others: list[str]) -> str:
    used: dict[str, list[str]] = {name: ["transfer.create"] for name in SIGNALS}
    for number, action in enumerate(others):
        used[SPREAD[number % len(SPREAD)]].append(action)
    return "signals:\n" + "".join(
        contract(name, kind, influence, used[name]) for name, (kind, influence, _) in SIGNALS.items()
    )


def contract(name: str, kind: str, influence: str, used_by: Sequence[str]) -> str:
    """One signal's entry in the register."""
    review = (datetime.now(UTC) + timedelta(days=180)).date().isoformat()
    return (
        f"  {name}:\n    type: {kind}\n    description: What the bench knows as {name}\n"
        "    owner: team-bench@prod.example\n    purpose: Be read at every request that is measured\n"
        "    subject: principal\n"
        f'    sources: [{{kind: push, publisher: "{PUBLISHER}", assurance: authoritative}}]\n'
        f"    max_age: 24h\n    influence: {influence}\n    used_by: {json.dumps(list(used_by))}\n"
        f"    review_by: {review}\n"
    )


def entities_json(principals: Sequence[str] = (PRINCIPAL,)) -> str:
    """The file of entities: these workloads, each with an owner."""
    attributes = {"owner": "team-payments@prod.example"}
    return json.dumps(
        [
            {"uid": {"type": "Workload", "id": principal}, "attrs": attributes, "parents": []}
            for principal in principals
        ]
    )


def _policies_in_play() -> list[str]:
    policies = []
    for number, (effect, condition) in enumerate(_CONDITIONS):
        names = re.findall(r"\{(\w+)\}", condition)
        guard = " && ".join(f"context.signals has {name}" for name in names)
        read = condition.format(**{name: f"context.signals.{name}" for name in names})
        policies.append(policy(effect, f"transfers-{number}", "transfer.create", f"{guard} && {read}"))
    limit = f"context.request.args has amount && context.request.args.amount > {FORBIDDEN_AMOUNT}"
    policies.append(policy("forbid", "transfers-amount", "transfer.create", limit))
    return policies


def _other_files(policies: list[str]) -> dict[str, str]:
    """In files that stay below the bound of one."""
    starts = range(0, max(1, len(policies)), A_FILE)
    return {
        f"policies/others{f'-{n}' if n else ''}.cedar": "\n".join(policies[at : at + A_FILE]) or "// none\n"
        for n, at in enumerate(starts)
    }


def _other_policies(others: list[str], count: int) -> list[str]:
    """So many, the same number for each action or one more."""
    policies = []
    for number, action in enumerate(others):
        name = SPREAD[number % len(SPREAD)]
        value = f"context.signals.{name}"
        holds = (
            f"{value} >= {{}}" if name == "device_trust" else f'{value} && context.request.path != "/{{}}"'
        )
        policies += [
            policy("permit", f"{action}-{n}", action, f"context.signals has {name} && {holds.format(n)}")
            for n in range(count // len(others) + (number < count % len(others)))
        ]
    return policies


def policy(effect: str, name: str, action: str, condition: str) -> str:
    """One policy of one action."""
    return f'@id("{name}")\n{effect} (principal, action == Action::"{action}", resource)\nwhen {{ {condition} }};\n'


def main() -> None:
    """For hands: a directory to look at."""
    parser = argparse.ArgumentParser(description="Makes the directory that the bench measures.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--policies", type=int, default=POLICIES)
    arguments = parser.parse_args()
    made = make(arguments.directory, policies=arguments.policies)
    (made.directory / "signals.json").write_bytes(signals_body())
    print(f"made {made.directory}; the publisher's token is {made.publisher_token}")


if __name__ == "__main__":
    main()
