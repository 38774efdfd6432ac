"""Which actions need the whole body of a request at the decision point, because an approval is bound to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from signalwarden.errors import Problem

__all__ = ["GATE", "findings", "gated_actions"]

GATE: Final = "require_approval"
"""The annotation of a policy that is a gate: `@require_approval("…")`."""
MAX_NAMED: Final = 8
"""Routes that one finding names; a longer sentence is not read."""


def gated_actions(described: Mapping[str, Any]) -> frozenset[str]:
    """Actions that a gate may apply to, of `Configuration.describe()`."""
    return frozenset(
        str(action["action"]) for action in described.get("actions", ()) if action.get("has_gates")
    )


def findings(described: Mapping[str, Any]) -> Iterator[Problem]:
    """One warning that names the routes whose bodies Envoy must forward. It is said once for all: a configuration
    that `signalwarden envoy config` made does so already, and nothing here can see the one that is in use."""
    gated = gated_actions(described)
    needing = [
        route
        for route in described.get("routes", ())
        if route.get("tier") == "approval" or route.get("action") in gated
    ]
    if not needing:
        return
    names = [f"`{route['action']}` (line {route['line']})" for route in needing[:MAX_NAMED]]
    more = len(needing) - len(names)
    said = ", ".join(names) + (f" and {more} more" if more else "")
    message = (
        f"Envoy must forward the whole body for {said}: an approval is bound to it. `signalwarden envoy config` sees "
        "to it; by hand it is `with_request_body` with `pack_as_bytes: true` and never `allow_partial_message: true`"
    )
    yield Problem("warning", "routes.yaml", needing[0]["line"], 1, "needs_body", message)
