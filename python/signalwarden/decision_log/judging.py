"""A line of a log as a record, or in words why it is none. Readers go on after it: nothing is raised."""

from __future__ import annotations

from typing import Any, Final

import orjson

from signalwarden.decision_log.records import RECORD_VERSION

__all__ = ["judge"]

KINDS: Final = frozenset({"decision", "change", "transport"})


def judge(raw: bytes) -> dict[str, Any] | str:
    """A record, or in words why the line is none."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "not JSON"
    if not isinstance(record, dict) or "v" not in record or "kind" not in record:
        return "JSON, but no record: it has no `v` and `kind`"
    if record["v"] != RECORD_VERSION:
        return f"a record of version {_short(record['v'])}, this program reads {RECORD_VERSION}"
    if record["kind"] not in KINDS:
        return f"a record of the kind {_short(record['kind'])}, which is not known here"
    return record


def _short(value: object) -> str:
    text = orjson.dumps(value).decode()
    shown = text if len(text) <= 20 else text[:20] + "…"
    return "".join(c if c.isprintable() else "?" for c in shown)
