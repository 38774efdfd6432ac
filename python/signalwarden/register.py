"""The register as people ask about it: contracts joined with what is live, and the path of one signal, from its
sources through the policies that read it to the actions and routes that they decide.

Works on `Configuration.describe()` and `Engine.signal_stats()` as they are; prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from signalwarden import _core
from signalwarden.errors import BadInputError

__all__ = [
    "exceptions_of",
    "join",
    "json_text",
    "path_of",
    "reach_of",
    "source_details",
    "source_text",
    "span_text",
    "states_text",
]

# What tells sources of a kind apart; the rest of a source's settings says how it is read.
_TELLING: Final = (
    "publisher",
    "feed",
    "header",
    "namespace",
    "key",
    "fact",
    "zone",
    "measure",
    "window",
    "issuer",
    "claim",
)
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))


def join(described: Mapping[str, Any], stats: Mapping[str, Any] | None, *, time: str) -> dict[str, Any]:
    """The answer of GET /v1/register: the description, each signal with `live`, what the server has seen of it.
    `live` is null where nothing counts it. Without `stats`, as the directory alone tells."""
    live = {entry["name"]: entry for entry in (stats or {}).get("signals", ())}
    signals = [{**contract, "live": _live(live.get(contract["name"]))} for contract in described["signals"]]
    # Principals are no part of the register, and there may be tens of thousands of them.
    rest = {part: said for part, said in described.items() if part != "principals"}
    return {**rest, "signals": signals, "time": time}


def _live(stats: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if stats is None else {key: value for key, value in stats.items() if key != "name"}


def path_of(register: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Everything that one signal touches. Raises BadInputError for a name that is not in the register."""
    contracts = {contract["name"]: contract for contract in register["signals"]}
    if name not in contracts:
        near = _core.nearest_name(name, sorted(contracts))
        hint = f", did you mean `{near}`?" if near else ""
        raise BadInputError(f"no signal `{name}` is registered{hint}")
    contract = contracts[name]
    feeds = {source.get("feed") for source in contract["sources"]}
    return {
        "time": register["time"],
        "revision": register["revision"],
        "signal": contract,
        "feeds": [feed for feed in register.get("feeds", ()) if feed["feed"] in feeds],
        "policies": [policy for policy in register["policies"] if name in policy["signals"]],
        "actions": reach_of(register, contract),
        "exceptions": exceptions_of(register, name),
    }


def reach_of(register: Mapping[str, Any], contract: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The actions that a signal may influence, each with its tier and the routes that lead to it."""
    tiers = {action["action"]: action["tier"] for action in register["actions"]}
    return [
        {
            "action": action,
            "tier": tiers.get(action),
            "routes": [route for route in register["routes"] if route["action"] == action],
        }
        for action in contract["used_by"]
    ]


def exceptions_of(register: Mapping[str, Any], name: str) -> list[str]:
    """The declared exceptions of one signal, as the core words them: place, name, what is excepted."""
    return [text for text in register["exceptions"] if f": `{name}` " in text]


def source_text(source: Mapping[str, Any]) -> str:
    """A source on one line: its kind, and what tells it from others of that kind."""
    telling = [_way(source[key]) for key in _TELLING if source.get(key) is not None]
    return " ".join([str(source["kind"]), "/".join(telling)]) if telling else str(source["kind"])


def _way(setting: Any) -> str:
    """A way down to a value is written as one."""
    return "/".join(map(str, setting)) if isinstance(setting, list) else str(setting)


def source_details(source: Mapping[str, Any]) -> str:
    """The rest of a source's settings, as JSON."""
    rest = {k: v for k, v in source.items() if k not in (*_TELLING, "kind", "assurance") and v is not None}
    return json_text(rest) if rest else ""


def json_text(value: Any) -> str:
    """JSON on one line, keys in order."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def span_text(milliseconds: int | None) -> str:
    """A span as contracts write it: the largest unit that divides it."""
    if not milliseconds:
        return "-" if milliseconds is None else "0s"
    return next(f"{milliseconds // size}{unit}" for size, unit in _UNITS if milliseconds % size == 0)


def states_text(states: Mapping[str, int] | None) -> str:
    """Counts by state, the most frequent first."""
    if states is None:
        return "-"
    counted: Iterable[tuple[str, int]] = sorted(states.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {state}" for state, number in counted if number) or "none"
