"""Envoy's RBAC filter: what Envoy can decide without asking anyone, from method, host, path and who asks.

It has no live signals, so what it lets in is what signalwarden lets in as long as all signals are well: measured beside
the others, it says what a decision without them would cost. The limit on an amount it can only see as text, so it is a
regular expression here, as one would have to write it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from bench import cases
from bench.peers import translate
from signalwarden import demo_stage
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.peers.translate import Policy, Route, Source

__all__ = ["PEER", "Rbac", "at_most"]

TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
XFCC: Final = "x-forwarded-client-cert"
_LIMIT: Final = re.compile(r"context\.request\.args\.(\w+) > (\d+)")


def at_most(limit: int) -> str:
    """A regular expression for the whole numbers from 0 to a limit, as RE2 reads it. Zeros may lead."""
    digits = str(limit)
    ways = [rf"[0-9]{{1,{len(digits) - 1}}}"] if len(digits) > 1 else []
    for at, digit in enumerate(digits):
        lowest = 1 if at == 0 and len(digits) > 1 else 0
        if int(digit) > lowest:
            rest = len(digits) - at - 1
            ways.append(f"{digits[:at]}[{lowest}-{int(digit) - 1}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return f"0*(?:{'|'.join([*ways, digits])})"


class Rbac:
    """The filter, as `bench.peers.EnvoyFilter` has it."""

    name = "envoy-rbac"

    def missing(self) -> str | None:
        """Whether there is an Envoy."""
        try:
            demo_stage.envoy_binary()
        except SignalwardenError as error:
            return str(error)
        return None

    def version(self) -> str:
        """It is a part of Envoy, whose version the bench names."""
        return "a part of Envoy"

    def http_filter(self, directory: Path) -> Mapping[str, Any]:
        """One policy for each action that anyone is permitted, for the workloads that are known."""
        source = translate.source(directory)
        actions = source.by_action()
        permitted = {
            route.action: _policy(source, route, actions[route.action])
            for route in source.routes
            if any(policy.effect == "permit" for policy in actions[route.action])
        }
        return {
            "name": "envoy.filters.http.rbac",
            "typed_config": {"@type": TYPE, "rules": {"action": "ALLOW", "policies": permitted}},
        }

    def answers(self) -> Mapping[str, bool]:
        """All of them: none needs a signal that is not well."""
        return {case.name: case.allow for case in cases.CASES}


def _policy(source: Source, route: Route, policies: list[Policy]) -> dict[str, Any]:
    rules = [
        {"header": {"name": ":method", "string_match": {"exact": route.method}}},
        {"header": {"name": ":authority", "string_match": {"prefix": route.host.removesuffix("*")}}},
        {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": _path(route, policies)}}}},
    ]
    known = [
        {"header": {"name": XFCC, "string_match": {"suffix": f"URI={principal}"}}}
        for principal in source.principals
    ]
    return {"permissions": [{"and_rules": {"rules": rules}}], "principals": [{"or_ids": {"ids": known}}]}


def _path(route: Route, policies: list[Policy]) -> str:
    """The path, and behind it no query but the arguments that are below their limits, each once."""
    parts = (
        "[^/?]+" if part.startswith("{") else re.escape(part) for part in route.path.strip("/").split("/")
    )
    limits = {
        found[1]: int(found[2])
        for policy in policies
        if policy.effect == "forbid"
        for found in map(_LIMIT.fullmatch, policy.conjuncts)
        if found
    }
    if not limits:
        return f"/{'/'.join(parts)}(?:\\?.*)?"
    arguments = "|".join(f"{name}={at_most(limit)}" for name, limit in sorted(limits.items()))
    return f"/{'/'.join(parts)}(?:\\?(?:{arguments}))?"


PEER: Final = Rbac()
