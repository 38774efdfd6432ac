"""Logs that the core itself has written: a starter directory, calls of several kinds, and their records as lines."""

from __future__ import annotations

import copy
import gzip
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from signalwarden import _core, config, request_json, starter
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.decision_log.records import change_record, transport_record

__all__ = ["MIX", "Recorded", "call"]

MIX: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"device_trust": 4},
    {"device_trust": 4, "posture": "ok"},
    {"device_trust": 2, "posture": "ok"},
    {"device_trust": 4, "posture": "compromised"},
)
"""What is known in turn: signal_unavailable twice, allowed, no_policy_permits, policy_denied."""


def call(directory: Path, **changes: Any) -> bytes:
    """The sample request of the starter as Envoy sends it; `path`, `method`, `body`, `principal` or a header."""
    request = json.loads((directory / "samples" / "refund.json").read_text())
    http = request["attributes"]["request"]["http"]
    del http["headers"]["x-task-type"]
    if "principal" in changes:
        request["attributes"]["source"]["principal"] = changes.pop("principal")
    http["headers"].update(changes.pop("headers", {}))
    http.update(changes)
    http["size"] = str(len(http.get("body", "")))
    http["headers"].update({":method": http["method"], ":path": http["path"]})
    http["headers"].pop("content-length", None)
    return request_json.to_bytes(json.dumps(request).encode())


@dataclass
class Recorded:
    """A directory with a log that its own decisions made."""

    directory: Path
    lines: list[bytes] = field(default_factory=list)

    @classmethod
    def starter(cls, directory: Path) -> Recorded:
        """A fresh starter directory."""
        return cls(starter.create(directory, now=datetime.now(UTC)).directory)

    @property
    def log(self) -> Path:
        return self.directory / "var" / "decisions.jsonl"

    @property
    def revision(self) -> str:
        return config.load(self.directory, now_us()).configuration.revision

    def decide(self, signals: dict[str, Any], *, count: int = 1, **changes: Any) -> list[dict[str, Any]]:
        """Decides a call so many times while these signals are known, and keeps the records."""
        engine = _core.Engine(influence="all")
        engine.swap(config.load(self.directory, now_us()).configuration)
        if signals:
            entries = [
                {"name": name, "subject": starter.AGENT, "value": value, "observed_at": rfc3339(now_us())}
                for name, value in signals.items()
            ]
            body = orjson.dumps({"signals": entries})
            admission = engine.admit(body, publisher=starter.PUBLISHER, now_us=now_us())
            assert admission.rejected == []
            engine.apply(admission.changes, now_us=now_us())
        request = call(self.directory, **copy.deepcopy(changes))
        for _ in range(count):
            engine.check(request)
        drained, number = engine.drain(max_records=count, wait_ms=0)
        assert number == count
        made = drained.splitlines()
        self.lines += made
        return [orjson.loads(line) for line in made]

    def change(self, change: str, **more: Any) -> dict[str, Any]:
        self.lines.append(change_record(change, at_us=now_us(), **more))
        return dict(orjson.loads(self.lines[-1]))

    def transport(self, transport: str, **more: Any) -> dict[str, Any]:
        self.lines.append(transport_record(transport, at_us=now_us(), **more))
        return dict(orjson.loads(self.lines[-1]))

    def write(self) -> Recorded:
        """Puts what was kept at the end of the log."""
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as file:
            file.writelines(line + b"\n" for line in self.lines)
        self.lines.clear()
        return self

    def rotate(self, number: int, *, compressed: bool = False) -> Path:
        """The log so far becomes a rotated file."""
        name = f"decisions-{number:06d}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
        rotated = self.log.with_name(name)
        self.log.rename(rotated)
        if compressed:
            packed = rotated.with_name(name + ".gz")
            packed.write_bytes(gzip.compress(rotated.read_bytes()))
            rotated.unlink()
            return packed
        return rotated
