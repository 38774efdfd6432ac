"""What a directory and its state say, for queries: what stands where, and what makes a control weaker."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import _core, body_needs, config
from signalwarden.directory import Directory
from signalwarden.errors import StateError, is_error
from signalwarden.state import kept_payloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from signalwarden.settings import Settings

__all__ = ["Ground", "Kept", "Listed", "Weakness"]

SETTINGS: Final = "signalwarden.yaml"
ENTITIES: Final = "entities.json"
MAX_TASKS: Final = 20_000
"""Of the state, as of the log."""
OF_THE_REGISTER: Final = frozenset({"I1", "I2", "I3"})
"""Promises that the register keeps, so they are suspended where policies see whole requests."""


@dataclass(frozen=True, slots=True)
class Weakness:
    """Something that makes a control weaker, or that a reader should know of it."""

    tag: str
    """What kind it is: controls name the kinds that weaken them."""
    text: str
    at: str | None = None
    """`routes.yaml:11`."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A principal of entities.json."""

    id: str
    at: str
    owner: str | None
    environment: str | None
    retired_at: str | None
    legacy: bool


@dataclass(slots=True)
class Kept:
    """What the state keeps."""

    tasks: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """Type and actions of each task."""
    changes: Counter[str] = field(default_factory=Counter)
    why_not: str | None = None
    """Why it was not read."""

    @staticmethod
    def of(path: Path) -> Kept:
        """Reads it. Never raises: a report without it says so."""
        kept = Kept()
        try:
            for payload in kept_payloads(path):
                told = orjson.loads(payload)
                kept.changes[str(told.get("change"))] += 1
                if told.get("change") == "task_begun" and len(kept.tasks) < MAX_TASKS:
                    kept.tasks[str(told["id"])] = str(told["type"]), frozenset(map(str, told["actions"]))
        except (StateError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            kept.why_not = str(error)
        return kept


class Ground:
    """A directory that loads."""

    def __init__(self, directory: Directory, loaded: config.Loaded, kept: Kept, now_us: int) -> None:
        self.directory = directory
        self.loaded = loaded
        self.kept = kept
        self.now_us = now_us
        self.described: dict[str, Any] = loaded.described()

    @staticmethod
    def of(path: Path, now_us: int) -> Ground:
        """Reads directory and state. Raises ConfigurationError."""
        directory = Directory.read(path)
        loaded = config.judge(directory, now_us)
        return Ground(directory, loaded, Kept.of(loaded.settings.state_path(loaded.root)), now_us)

    @property
    def settings(self) -> Settings:
        """As they are in force after the next start."""
        return self.loaded.settings

    @property
    def revision(self) -> str:
        """Of the directory."""
        return self.loaded.configuration.revision

    @property
    def log_path(self) -> Path:
        """The current file of its log."""
        return self.settings.log_path(self.loaded.root)

    # ------------------------------------------------------------ what stands where

    @cached_property
    def routes(self) -> list[dict[str, Any]]:
        """As `describe` tells them."""
        return list(self.described["routes"])

    @cached_property
    def policies(self) -> list[dict[str, Any]]:
        """Those that count; `observing` has the others."""
        return [policy for policy in self.described["policies"] if policy["mode"] == "enforce"]

    @cached_property
    def observing(self) -> list[dict[str, Any]]:
        """Policies that are tried without effect."""
        return [policy for policy in self.described["policies"] if policy["mode"] != "enforce"]

    @cached_property
    def contracts(self) -> list[dict[str, Any]]:
        """The register."""
        return list(self.described["signals"])

    @cached_property
    def principals(self) -> list[Listed]:
        """The workloads that entities.json lists."""
        return list(self._listed())

    def _listed(self) -> Iterator[Listed]:
        content = self.directory.files.get(ENTITIES, b"[]")
        entities = orjson.loads(content)
        places = self._places(ENTITIES)
        for at, entity in enumerate(entities):
            uid, attrs = entity.get("uid", {}), entity.get("attrs", {})
            name = uid.get("id") if isinstance(uid, dict) else None
            if not isinstance(name, str) or not name.startswith("spiffe://"):
                continue
            line = places.get(f"/{at}", (0, 0))[0]
            yield Listed(
                name,
                f"{ENTITIES}:{line}" if line else ENTITIES,
                _text(attrs.get("owner")),
                _text(attrs.get("environment")),
                _text(attrs.get("retired_at")),
                attrs.get("legacy") is True,
            )

    def policy_at(self, policy: dict[str, Any]) -> str:
        """`policies/refunds.cedar:14`."""
        return f"{policy['file']}:{policy['line']}"

    def contract_at(self, contract: dict[str, Any]) -> str:
        """`signals.yaml:3`."""
        return f"signals.yaml:{contract['line']}"

    def setting_at(self, pointer: str) -> str:
        """Where a setting stands, or the next one around it that is written; else the file."""
        while pointer:
            if (place := self._places(SETTINGS).get(pointer)) is not None:
                return f"{SETTINGS}:{place[0]}"
            pointer = pointer.rpartition("/")[0]
        return SETTINGS

    def _places(self, file: str) -> dict[str, tuple[int, int]]:
        if file not in self._read:
            text = self.directory.files.get(file, b"").decode(errors="replace")
            self._read[file] = dict(_core.parse_yaml(file, text).places)
        return self._read[file]

    @cached_property
    def _read(self) -> dict[str, dict[str, tuple[int, int]]]:
        return {}

    def reading(self, pattern: str) -> list[str]:
        """Places of policies that count and whose text, comments left out, has what the pattern says."""
        return [self.policy_at(policy) for policy in self.policies if re.search(pattern, self._text(policy))]

    def _text(self, policy: dict[str, Any]) -> str:
        """From its line to where the next policy of its file begins."""
        lines = self._lines(policy["file"])
        later = [p["line"] for p in self.described["policies"] if p["file"] == policy["file"]]
        end = min((line for line in later if line > policy["line"]), default=len(lines) + 1)
        return "\n".join(re.sub(r"//.*", "", line) for line in lines[policy["line"] - 1 : end - 1])

    def _lines(self, file: str) -> list[str]:
        return self.directory.files.get(file, b"").decode(errors="replace").splitlines()

    @cached_property
    def mcp_actions(self) -> set[str]:
        """Actions that are calls of an agent's tools."""
        return {route["action"] for route in self.routes if "(mcp " in route["match"]}

    @property
    def lets_all_pass(self) -> bool:
        """Whether no route is enforced at all."""
        return bool(self.routes) and not any(route["enforce"] for route in self.routes)

    @property
    def suspended(self) -> frozenset[str]:
        """Promises that the settings take back, by `ungoverned: true`."""
        return OF_THE_REGISTER if self.loaded.ungoverned is not None else frozenset()

    def may(self, right: str) -> list[str]:
        """Clients of the admin API with a right."""
        return sorted({client.id for client in self.settings.clients if right in client.may})

    # ------------------------------------------------------------ what weakens

    @cached_property
    def weaknesses(self) -> list[Weakness]:
        """All of them, in the order in which they are looked for."""
        return [*self._of_engines(), *self._of_routes(), *self._of_contracts(), *self._of_settings(),
                *self._of_principals(), *self._of_policies(), *self._of_check()]  # fmt: skip

    def weakening(self, tags: Sequence[str]) -> list[Weakness]:
        """Those of these kinds."""
        return [weakness for weakness in self.weaknesses if weakness.tag in tags]

    def _of_engines(self) -> Iterator[Weakness]:
        if self.suspended:
            text = (
                f"policies in Rego see whole requests (`ungoverned: true`): {', '.join(sorted(self.suspended))} are "
                "suspended for what they decide"
            )
            if not any(name.endswith(".cedar") for name in self.directory.files):
                text += "; a `coarse` route asks for no identity"
            yield Weakness("ungoverned", text, self.setting_at("/policies/rego/ungoverned"))

    def _of_routes(self) -> Iterator[Weakness]:
        for route in self.routes:
            if not route["enforce"]:
                yield Weakness("unenforced", f"denials of `{route['action']}` are let pass", route["route"])
            if route["system"] is None and route["tier"] != "coarse":
                yield Weakness("no_system", f"`{route['action']}` names no system", route["route"])
            if route["environment"] is None:
                yield Weakness("no_environment", f"`{route['action']}` names no environment", route["route"])

    def _of_contracts(self) -> Iterator[Weakness]:
        today = datetime.fromtimestamp(self.now_us / 1e6, UTC).date()
        for contract in self.contracts:
            name, at = contract["name"], self.contract_at(contract)
            if contract["when_unavailable"] == "absent":
                yield Weakness("absent", f"`{name}` counts as absent when its feed is lost", at)
            if contract["corroborate"] is not None:
                yield Weakness("company", f"bad news of `{name}` counts only in company", at)
            if all(source["assurance"] == "self_asserted" for source in contract["sources"]):
                yield Weakness(
                    "self_asserted", f"`{name}` is the caller's own word: it can only restrict", at
                )
            if not contract["approvers"]:
                yield Weakness("no_approvers", f"nobody must sign changes of `{name}`", at)
            if date.fromisoformat(contract["review_by"]) < today:
                yield Weakness("review_past", f"the review of `{name}` was due {contract['review_by']}", at)

    def _of_settings(self) -> Iterator[Weakness]:
        settings, identity = self.settings, self.settings.identity
        if settings.insecure:
            yield Weakness("insecure", "doors are open without TLS", self.setting_at("/insecure"))
        if {"envoy_peer", "xfcc"} & {*identity.sources} and not identity.require_certificate:
            text = "an X.509 identity counts without its certificate, so its life and digest may be unknown"
            yield Weakness("no_certificate", text, self.setting_at("/identity/require_certificate"))
        if "xfcc" in identity.sources and not identity.xfcc.by:
            text = "`xfcc` takes the last element, whoever wrote it"
            yield Weakness("no_certificate", text, self.setting_at("/identity/xfcc"))
        if "jwt_svid" in identity.sources:
            yield Weakness("bearer", "JWT-SVIDs are bearer tokens", self.setting_at("/identity/jwt_svid"))
        for at, issuer in enumerate(identity.oauth):
            if issuer.binding != "required":
                text = f"tokens of `{issuer.issuer}` count without a binding to a certificate"
                yield Weakness("bearer", text, self.setting_at(f"/identity/oauth/{at}"))
        if not settings.principals.require_record:
            text = "a principal that entities.json does not list is not denied for that"
            yield Weakness("unlisted", text, self.setting_at("/principals/require_record"))
        for at, client in enumerate(settings.clients):
            if client.token_sha256 is not None:
                text = f"the client `{client.id}` comes with a bearer token"
                yield Weakness("client_token", text, self.setting_at(f"/clients/{at}"))
        for at, domain in enumerate(settings.federates_with):
            text = f"principals of `{domain}` are accepted on its word"
            yield Weakness("federated", text, self.setting_at(f"/federates_with/{at}"))
        if settings.decision_log.influence != "all":
            text = (
                f"what each signal did is recorded for `influence: {settings.decision_log.influence}` alone"
            )
            yield Weakness("influence", text, self.setting_at("/decision_log/influence"))

    def _of_principals(self) -> Iterator[Weakness]:
        for principal in self.principals:
            if principal.owner is None:
                yield Weakness("no_owner", f"nobody answers for `{principal.id}`", principal.at)
            if principal.legacy:
                text = f"`{principal.id}` stands for a caller with a long-lived secret"
                yield Weakness("legacy", text, principal.at)

    def _of_policies(self) -> Iterator[Weakness]:
        for policy in self.observing:
            text = f"the policy `{policy['id']}` is tried without effect"
            yield Weakness("observing", text, self.policy_at(policy))
        for policy in self.policies:
            if policy["effect"] == "permit" and re.search(r"permit\s*\(\s*principal\s*,", self._text(policy)):
                text = f"the scope of the permit `{policy['id']}` names no principal"
                yield Weakness("open_permit", text, self.policy_at(policy))

    def _of_check(self) -> Iterator[Weakness]:
        """Warnings of `check` that have no line of their own above."""
        said = {"unenforced_route", "review_past", "ungoverned"}
        for finding in (*self.loaded.warnings, *body_needs.findings(self.described)):
            if finding.code not in said and not is_error(finding):
                tag = "client_long_lived" if finding.code == "client_long_lived" else "check"
                yield Weakness(tag, f"{finding.message} (`{finding.code}`)", f"{finding.file}:{finding.line}")


def _text(value: object) -> str | None:
    """A text; a Cedar extension value by what stands in it."""
    if isinstance(value, dict):
        inner = value.get("__extn", value)
        value = inner.get("arg") if isinstance(inner, dict) else None
    return value if isinstance(value, str) and value else None
