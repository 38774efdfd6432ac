"""A receiver of security events for tests: a stream with the real core and store behind it, a transmitter before it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from signalwarden import _core
from signalwarden.errors import StateError
from signalwarden.intake import Intake
from signalwarden.keysets import KeySet
from signalwarden.signals.ssf.basis import Basis
from signalwarden.signals.ssf.events import contracts_of
from signalwarden.signals.ssf.set import Verifier
from signalwarden.signals.ssf.stream import Outcome, Stream
from signalwarden.signals.ssf.subjects import Rules
from signalwarden.state import SqliteStore
from tests.asking import CORE_SETTINGS
from tests.conftest import MINIMAL
from tests.transmitter import AUDIENCE, ISSUER, Transmitter, key_set

NOW = 1_764_000_000
HOUR = 3_600
RETENTION = 24 * HOUR
REGISTER = f"""\
feeds:
  idp:
    kind: ssf
    issuer: "{ISSUER}"
    audience: "{AUDIENCE}"
    keys: {{file: keys.json}}
    delivery: push
    members: {{tenant: "T-1"}}
signals:
  device_ok:
    type: bool
    description: Whether the device is in order
    owner: team-endpoint@prod.example
    purpose: Keep devices away that are not
    subject: device
    sources:
      - kind: ssf
        feed: idp
        assurance: sourced
        while_live: true
        events:
          device-compliance-change: {{claim: current_status, values: {{compliant: true, not-compliant: false}}}}
          session-revoked: {{value: false}}
    max_age: 1h
    influence: grant
    used_by: [page.read]
    review_by: 2099-01-01
  level:
    type: long
    description: A number of the device's own
    owner: team-endpoint@prod.example
    purpose: Tell devices apart
    subject: device
    sources: [{{kind: ssf, feed: idp, assurance: sourced, events: {{"https://idp.example/level": {{claim: level}}}}}}]
    max_age: 1h
    influence: grant
    used_by: [page.read]
    review_by: 2099-01-01
"""


class World:
    """A stream with the real core and store behind it, and a transmitter before it; time stands where it is put."""

    def __init__(self, root: Path, *, max_live: int = 1_000) -> None:
        self.now = NOW
        self.root = root
        self.max_live = max_live
        self.transmitter = Transmitter()
        self.notes: list[tuple[str, str]] = []
        self.changes: list[dict[str, str]] = []
        self.broken = False
        self.contracts = {"device_ok": "digest"}
        self.up()

    def up(self) -> None:
        files = [(name, text.encode()) for name, text in MINIMAL.items() if name != "signalwarden.yaml"]
        files = [pair for pair in files if pair[0] != "signals.yaml"] + [("signals.yaml", REGISTER.encode())]
        configuration = _core.Configuration.load(files, settings=CORE_SETTINGS, now_us=self.clock())
        self.engine = _core.Engine(max_live=self.max_live)
        self.store = SqliteStore(self.root / "state.db")
        self.engine.apply(list(self.store.read_all()), now_us=self.clock())
        self.engine.swap(configuration)
        self.intake = Intake(self.engine, self.store, clock=self.clock, max_rate=1_000)
        keys = KeySet(lambda: key_set(self.transmitter.key), refresh_s=600)
        self.stream = Stream(
            "idp",
            Verifier(ISSUER, AUDIENCE, keys),
            Rules(ISSUER, {"tenant": "T-1"}, frozenset({"application"})),
            contracts_of(json.loads(configuration.describe())["signals"], "idp"),
            retention_us=RETENTION * 1_000_000,
            core=self.engine,
            keep=self.keep,
            clock=self.clock,
            basis=Basis(self.store, "idp", self.contracts),
            change=self.change,
        )
        self.stream.settle()

    def keep(self, make: Callable[[], Sequence[_core.StoredChange]]) -> None:
        if self.broken:
            raise StateError("the disk is full")
        self.intake.keep(make)

    def change(self, change: str, **keys: str) -> None:
        if change == "stream_suspended":
            self.notes.append((keys["feed"], keys["detail"]))
        else:
            self.changes.append({"change": change, **keys})

    def restart(self) -> None:
        self.store.close()
        self.up()

    def clock(self) -> int:
        return self.now * 1_000_000

    def known(self) -> dict[tuple[str, str], tuple[str, Any]]:
        """What the core knows: state and value by signal and subject."""
        listed = json.loads(self.engine.signals(subject=None, limit=1_000, now_us=self.clock()))["signals"]
        return {(one["name"], one["subject"]): (one["state"], one.get("value")) for one in listed}

    def live(self) -> dict[str, Any]:
        """How the stream is."""
        feeds: list[dict[str, Any]] = json.loads(self.engine.feeds())
        return feeds[0]

    def everything(self) -> Any:
        """All that a SET may change."""
        return self.known(), self.live(), [change.payload for change in self.store.read_all()]

    def vouched(self) -> World:
        """After an operator vouched for it and the transmitter verified it."""
        self.stream.resynchronise("spiffe://prod.example/operator")
        assert self.stream.take(self.transmitter.verification(self.now)) is Outcome.ACCEPTED
        return self

    def event(self, kind: str, sub_id: Any = None, **payload: Any) -> bytes:
        return self.transmitter.event(self.now, kind, sub_id or device("d1"), **payload)

    def compliance(self, status: str, *, at: float | None = None, name: str = "d1") -> bytes:
        return self.event(
            "device-compliance-change", device(name), current_status=status, event_timestamp=at or self.now
        )


def device(name: str, **more: Any) -> dict[str, Any]:
    return {"format": "complex", "device": {"format": "opaque", "id": name}, **more}
