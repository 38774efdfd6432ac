"""Decides one request without a server: what `signalwarden decide` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from signalwarden import _core, config
from signalwarden.decision_log import rfc3339
from signalwarden.errors import BadInputError

__all__ = ["Decision", "decide"]

# No publisher has this name: an unknown signal is refused by the core as such, whoever sends it.
NOBODY = "spiffe://nobody.invalid/offline"


@dataclass(frozen=True, slots=True)
class Decision:
    """What would be decided."""

    answer: bytes
    """The serialised CheckResponse."""
    record: dict[str, Any]
    """The decision record, influence of every signal included."""

    @property
    def outcome(self) -> str:
        """`allow` or `deny`."""
        return str(self.record["outcome"])


def decide(directory: Path, request: bytes, *, signals: bytes | None, now_us: int) -> Decision:
    """Decides a serialised CheckRequest at a time, with these signals and no others.

    `signals` is a body of POST /v1/signals; each is applied as if it came from its registered source, and one
    without `observed_at` as if observed at `now_us`. Raises BadInputError if one is refused.
    """
    loaded = config.load(directory, now_us)
    engine = _core.Engine(influence="all")
    engine.swap(loaded.configuration)
    if signals is not None:
        origins = _origins(loaded.configuration)
        for index, signal in enumerate(_entries(signals)):
            _publish(engine, index, {"observed_at": rfc3339(now_us), **signal}, origins, now_us)
    answer, record = engine.decide(request, now_us=now_us)
    return Decision(answer, orjson.loads(record))


def _entries(body: bytes) -> list[dict[str, Any]]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadInputError(f"the signals are not JSON: {error}") from error
    entries = document.get("signals") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInputError(
            'the signals are not a body of POST /v1/signals: expected {"signals": [{"name", …}]}'
        )
    return entries


def _origins(configuration: _core.Configuration) -> dict[str, list[str]]:
    """Where the values of each signal come from beforehand. One with several such sources is told by all of them:
    they agree."""
    described = orjson.loads(configuration.describe())
    return {
        contract["name"]: [origin for source in contract["sources"] if (origin := _origin(source))]
        for contract in described["signals"]
    }


def _origin(source: dict[str, Any]) -> str | None:
    match source.get("kind"):
        case "push":
            return str(source["publisher"])
        case "poll" | "ssf" as kind:
            return f"{kind}:{source['feed']}"
    return None


def _publish(
    engine: _core.Engine, index: int, signal: dict[str, Any], origins: dict[str, list[str]], now_us: int
) -> None:
    name = signal.get("name")
    registered = origins.get(name, [NOBODY]) if isinstance(name, str) else [NOBODY]
    if not registered:
        raise BadInputError(
            f"signals[{index}]: `{name}` has no source that is told beforehand, it comes with the request"
        )
    for origin in registered:
        body = orjson.dumps({"signals": [signal]})
        admission = engine.admit(body, publisher=origin, now_us=now_us)
        for _, reason, detail in admission.rejected:
            raise BadInputError(f"signals[{index}]: {detail} (`{reason}`)")
        engine.apply(admission.changes, now_us=now_us)
