"""Directories and records for tests of the evidence report: planted, one thing at a time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import orjson

from signalwarden.audit.gathered import Gathered
from signalwarden.audit.ground import Ground
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.log_reading.records import Entry

__all__ = ["AGENT", "FEED", "FULL", "Log", "ground_of", "written"]

AGENT: Final = "spiffe://prod.example/agent"
FEED: Final = "spiffe://prod.example/feed"
START_US: Final = 1_795_500_000_000_000

FULL: Final = {
    "signalwarden.yaml": f"""\
trust_domain: prod.example
federates_with: [partner.example]
listen: {{check: "127.0.0.1:0", admin: "127.0.0.1:0"}}
identity: {{sources: [envoy_peer]}}
principals: {{require_record: true}}
clients:
  - {{id: "{FEED}", may: [publish], token_sha256: "{"ab" * 32}", expires: "2099-01-01T00:00:00Z"}}
  - {{id: "spiffe://prod.example/people/anna", may: [approve, override, operate], token_sha256: "{"cd" * 32}", expires: "2099-01-01T00:00:00Z"}}
""",
    "routes.yaml": """\
routes:
  - match: {host: "pages.example", method: GET, path: "/home"}
    action: page.read
    resource: {type: Page, id: "home"}
    system: pages
    tier: runtime
    sensitivity: low
    environment: prod
  - match: {host: "pages.example", method: POST, path: "/notes/{id}"}
    action: note.write
    resource: {type: Page, id: "{id}"}
    system: notes
    tier: jit
    sensitivity: high
  - match: {host: "pages.example", method: POST, path: "/transfers/{id}"}
    action: transfer.create
    resource: {type: Page, id: "{id}"}
    system: payments
    tier: approval
    sensitivity: high
  - match: {host: "tools.example", method: POST, path: /mcp, mcp: {method: tools/call, tool: read_note}}
    action: tool.read
    resource: {type: Page, id: tool}
    system: notes
    tier: runtime
    sensitivity: low
    enforce: false
default: deny
""",
    "signals.yaml": f"""\
signals:
  posture:
    {{type: "enum[ok, bad]", subject: principal, max_age: 5m, influence: grant, used_by: [page.read], description: d,
     owner: o@x, purpose: p, review_by: 2099-01-01, when_unavailable: absent, justification: j,
     sources: [{{kind: push, publisher: "{FEED}", assurance: authoritative}}]}}
""",
    "entities.cedarschema": """\
entity Workload = {owner?: String, environment?: String, retired_at?: datetime, legacy?: Bool, legacy_until?: datetime};
entity Page;
""",
    "entities.json": orjson.dumps(
        [
            {
                "uid": {"type": "Workload", "id": AGENT},
                "attrs": {"owner": "team@x", "environment": "prod"},
                "parents": [],
            },
            {
                "uid": {"type": "Workload", "id": "spiffe://prod.example/old"},
                "attrs": {"retired_at": {"__extn": {"fn": "datetime", "arg": "2026-01-01T00:00:00Z"}}},
                "parents": [],
            },
        ],
        option=orjson.OPT_INDENT_2,
    ).decode(),
    "policies/pages.cedar": """\
@id("read") permit (principal, action == Action::"page.read", resource)
when { context.signals has posture && context.signals.posture == "ok" };
// A comment on context.identity.interactive is no policy that reads it.
@id("notes") permit (principal, action == Action::"note.write", resource)
when { context.chain.systems.contains("notes") };
@id("transfers") permit (principal, action == Action::"transfer.create", resource);
@id("tool") permit (principal, action == Action::"tool.read", resource);
@id("no-humans") forbid (principal, action == Action::"page.read", resource)
when { context.identity.interactive };
@id("give") permit (principal, action == Action::"approval.give", resource);
""",
}
"""A directory in which everything is switched on that a query looks for."""


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def ground_of(root: Path, files: dict[str, str] = FULL) -> Ground:
    return Ground.of(written(root, files), now_us())


class Log:
    """Records in the order in which they are planted, a second apart."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    @property
    def lines(self) -> list[bytes]:
        return [entry.raw for entry in self.entries]

    def decision(self, reason: str = "allowed", *, count: int = 1, **more: Any) -> Log:
        """`request`, `principal`, `policies`, … are merged into those of an ordinary call; None takes one out."""
        allowed = reason == "allowed"
        record: dict[str, Any] = {
            "v": 1, "kind": "decision", "time": self._time(), "decision_id": f"d{len(self.entries)}",
            "outcome": "allow" if allowed else "deny", "reason": reason, "http_status": 200 if allowed else 403,
            "request": {"method": "GET", "host": "pages.example", "path": "/home", "action": "page.read",
                        "route": "routes.yaml:2", "tier": "runtime", "sensitivity": "low", "system": "pages"},
            "principal": {"id": AGENT, "source": "envoy_peer", "kind": "x509", "class": "x509_svid",
                          "trust_domain": "prod.example", "bound": True},
            "signals": [], "policies": {"revision": "r", "determining": []}, "grant": None, "approval": None, "chain": None,
        }  # fmt: skip
        for key, value in more.items():
            both = isinstance(value, dict) and isinstance(record.get(key), dict)
            record[key] = {**record[key], **value} if both else value
        for _ in range(count):
            self._add(copy.deepcopy(record))
        return self

    def change(self, change: str, **more: Any) -> Log:
        self._add(
            {"v": 1, "kind": "change", "time": self._time(), "change_id": "c", "change": change, **more}
        )
        return self

    def transport(self, transport: str, count: int) -> Log:
        self._add({"v": 1, "kind": "transport", "time": self._time(), "transport": transport, "count": count})
        return self

    def gathered(self) -> Gathered:
        gathered = Gathered()
        for entry in self.entries:
            gathered.add(entry)
        return gathered

    def _time(self) -> str:
        return rfc3339(START_US + len(self.entries) * 1_000_000)

    def _add(self, record: dict[str, Any]) -> None:
        raw = orjson.dumps(record)
        self.entries.append(Entry(raw, record, Path("decisions.jsonl"), len(self.entries) + 1))
