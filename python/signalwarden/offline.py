"""Decides requests without a server: what `signalwarden decide` and `signalwarden test` do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import _core, config
from signalwarden.decision_log import rfc3339
from signalwarden.errors import BadInputError
from signalwarden.values import origin_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Decision", "Refused", "Scene", "decide", "origins"]

# No publisher has this name: an unknown signal is refused by the core as such, whoever sends it.
NOBODY: Final = "spiffe://nobody.invalid/offline"
# Of decisions about tasks and approvals, which go through the log: a scene has a few, and is read at once.
LOG_RECORDS: Final = 256


@dataclass(frozen=True, slots=True)
class Decision:
    """What would be decided."""

    answer: bytes
    """The serialised CheckResponse."""
    record: dict[str, Any]
    """The decision record, influence of every signal included."""
    line: bytes
    """The same as the log would have it."""
    changes: tuple[_core.StoredChange, ...]
    """What would be kept before the answer leaves."""
    reach: tuple[dict[str, Any], ...]
    """Of each policy in play its id and its truths, as `_core.rehearse` tells them."""

    @property
    def outcome(self) -> str:
        """`allow` or `deny`."""
        return str(self.record["outcome"])


@dataclass(frozen=True, slots=True)
class Refused:
    """A signal that was not taken in."""

    reason: str
    detail: str


def origins(described: dict[str, Any]) -> dict[str, list[str]]:
    """Where the values of each signal come from beforehand, by `Configuration.describe()`. One with several such
    sources is told by all of them: they agree."""
    return {
        contract["name"]: [origin for source in contract["sources"] if (origin := origin_of(source))]
        for contract in described["signals"]
    }


class Scene:
    """A running core without a server, which knows what it was told and nothing else."""

    def __init__(self, configuration: _core.Configuration, known: dict[str, list[str]]) -> None:
        self.engine = _core.Engine(influence="all", log_capacity=LOG_RECORDS)
        self.engine.swap(configuration)
        self._origins = known

    def origins_of(self, name: str) -> list[str]:
        """Who is heard about a signal; whoever sends one that is not registered, it is refused as such."""
        return self._origins.get(name, [NOBODY])

    def publish(self, signal: dict[str, Any], *, origin: str, now_us: int) -> Refused | None:
        """Takes an entry of a body of POST /v1/signals in, as from this origin; says so if it was refused."""
        admission = self.engine.admit(orjson.dumps({"signals": [signal]}), publisher=origin, now_us=now_us)
        for _, reason, detail in admission.rejected:
            return Refused(reason, detail)
        self.engine.apply(admission.changes, now_us=now_us)
        return None

    def decide(self, request: bytes, *, now_us: int) -> Decision:
        """Decides a serialised CheckRequest; what it would change is not applied."""
        answer, record, changes, reach = _core.rehearse(self.engine, request, now_us=now_us)
        return Decision(answer, orjson.loads(record), record, tuple(changes), tuple(orjson.loads(reach)))


def decide(directory: Path, request: bytes, *, signals: bytes | None, now_us: int) -> Decision:
    """Decides a serialised CheckRequest at a time, with these signals and no others.

    `signals` is a body of POST /v1/signals; each is applied as if it came from its registered source, and one
    without `observed_at` as if observed at `now_us`. Raises BadInputError if one is refused.
    """
    loaded = config.load(directory, now_us)
    scene = Scene(loaded.configuration, origins(loaded.described()))
    for index, signal in enumerate(_entries(signals) if signals is not None else []):
        _publish(scene, index, {"observed_at": rfc3339(now_us), **signal}, now_us)
    return scene.decide(request, now_us=now_us)


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


def _publish(scene: Scene, index: int, signal: dict[str, Any], now_us: int) -> None:
    name = signal.get("name")
    registered = scene.origins_of(name) if isinstance(name, str) else [NOBODY]
    if not registered:
        raise BadInputError(
            f"signals[{index}]: `{name}` has no source that is told beforehand, it comes with the request"
        )
    for origin in registered:
        if refused := scene.publish(signal, origin=origin, now_us=now_us):
            raise BadInputError(f"signals[{index}]: {refused.detail} (`{refused.reason}`)")
