"""Publishers and feeds switched off and on again, at once: what can be switched, and how each stands.

Switched off, its values are `unverified` from the next decision on and new ones are refused; switched on again, only
what it observes from then on counts. Both outlive a restart: they are changes like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from signalwarden.errors import UnknownPublisherError
from signalwarden.values import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalwarden import _core
    from signalwarden.decision_log import Recorder
    from signalwarden.intake import Intake

__all__ = ["Publishers", "origins"]


def origins(description: bytes) -> dict[str, list[str]]:
    """Who may bring values, of `Configuration.describe()`: a SPIFFE ID, `poll:FEED` or `ssf:FEED`, and for which
    signals."""
    found: dict[str, list[str]] = {}
    for contract in orjson.loads(description)["signals"]:
        for source in contract["sources"]:
            origin = origin_of(source)
            if origin is not None and contract["name"] not in found.setdefault(origin, []):
                found[origin].append(contract["name"])
    return found


class Publishers:
    """The switches of a running app. Thread-safe."""

    def __init__(
        self,
        engine: _core.Engine,
        intake: Intake,
        recorder: Recorder,
        *,
        description: Callable[[], bytes],
        clock: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._recorder = recorder
        self._description = description
        self._clock = clock

    def switch(self, actor: str, publisher: str, signal: str | None, *, enabled: bool) -> bytes:
        """Switches a publisher or feed, or one of its signals, off or on; JSON of how it stands then. What is so
        already stays as it is, and is no change: to switch on anew would throw good values away.
        Raises UnknownPublisherError, BadInputError and StateError."""
        self._known(publisher, signal)
        done: list[_core.StoredChange] = []

        def make() -> list[_core.StoredChange]:
            if ((publisher, signal) in self._engine.switched_off()) is enabled:
                done.append(
                    self._engine.switch_publisher(
                        publisher, signal=signal, enabled=enabled, now_us=self._clock()
                    )
                )
            return done

        self._intake.keep(make)
        if done:
            self._record(actor, publisher, signal, enabled=enabled)
        return orjson.dumps(self._standing(publisher, origins(self._description()), self._heard()))

    def _known(self, publisher: str, signal: str | None) -> None:
        """A switch of a name that nobody has would leave the one on that was meant."""
        named = origins(self._description())
        off = self._engine.switched_off()
        if signal is not None:
            if signal not in named.get(publisher, ()) and (publisher, signal) not in off:
                raise UnknownPublisherError(f"no contract takes the signal `{signal}` from `{publisher}`")
        elif publisher not in named and (publisher, None) not in off:
            raise UnknownPublisherError(f"no contract names the publisher or feed `{publisher}`")

    def _record(self, actor: str, publisher: str, signal: str | None, *, enabled: bool) -> None:
        if enabled:
            self._recorder.change("publisher_enabled", actor=actor, publisher=publisher, signal=signal)
        else:
            self._recorder.change("publisher_disabled", actor=actor, publisher=publisher, signal=signal)

    def listing(self) -> bytes:
        """JSON of all that contracts name, that was heard since the start, or that is switched off: `{"publishers":
        [{"publisher", "disabled", "disabled_signals", "signals", "last_seen", "accepted", "rejected"}]}`."""
        named, heard = origins(self._description()), self._heard()
        every = {*named, *heard, *(publisher for publisher, _ in self._engine.switched_off())}
        standings = [self._standing(publisher, named, heard) for publisher in sorted(every)]
        return orjson.dumps({"publishers": standings})

    def _heard(self) -> dict[str, dict[str, Any]]:
        """What the core has counted of each since the start."""
        return {entry["publisher"]: entry for entry in orjson.loads(self._engine.publishers())}

    def _standing(
        self, publisher: str, named: dict[str, list[str]], heard: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        off = [signal for who, signal in self._engine.switched_off() if who == publisher]
        counted = heard.get(publisher, {})
        return {
            "publisher": publisher,
            "disabled": None in off,
            "disabled_signals": sorted(signal for signal in off if signal is not None),
            "signals": sorted(named.get(publisher, [])),
            "last_seen": counted.get("last_seen"),
            "accepted": counted.get("accepted", 0),
            "rejected": counted.get("rejected", {}),
        }
