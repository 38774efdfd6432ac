"""From an id to a story: the record is found, the directory beside it looked at, and the decision decided again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from signalwarden import _core
from signalwarden.decision_log.judging import judge
from signalwarden.errors import BadInputError, SignalwardenError
from signalwarden.log_reading import changes, story
from signalwarden.log_reading.telling import Step, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalwarden.log_reading.beside import Beside

__all__ = ["explained", "record_of"]


def record_of(text: bytes, where: str) -> tuple[bytes, dict[str, Any]]:
    """A record that was given by itself, on one line or several. Raises BadInputError."""
    line = text.strip()
    if b"\n" in line:
        try:
            line = orjson.dumps(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise BadInputError(f"{where} is not one record: expected one JSON object") from error
    record = judge(line)
    if isinstance(record, str):
        raise BadInputError(f"{where} is no record of a decision log: it is {record}")
    return line, record


def explained(
    raw: bytes, record: dict[str, Any], beside: Beside, related: Sequence[dict[str, Any]] = ()
) -> story.Story | dict[str, Any]:
    """A story of a decision; of another record its sentence and keys."""
    if record["kind"] != "decision":
        return {
            "kind": record["kind"],
            "id": record.get("change_id") or record.get("event_id"),
            "time": record.get("time"),
            "sentence": changes.sentence(record),
            "steps": changes.change_story(record),
            "record": record,
        }
    analysis, why = _analysis(raw, record, beside)
    told = story.decision(record, beside, analysis, why)
    if related:
        step = Step("and then")
        for one in related:
            own = f"the decision {one.get('decision_id')}: {one.get('outcome')} {one.get('reason')}"
            said = own if one["kind"] == "decision" else changes.sentence(one)
            step.say(f"{text_of(one.get('time'))}  {said}")
        told.steps.append(step)
    return told


def _analysis(raw: bytes, record: dict[str, Any], beside: Beside) -> tuple[dict[str, Any] | None, str]:
    """What `Replay.explain` says of a record, by the very directory that decided it; else why it says nothing."""
    revision = (
        record.get("policies", {}).get("revision") if isinstance(record.get("policies"), dict) else None
    )
    why_not = beside.why_not(revision)
    if why_not is not None or beside.loaded is None:
        return None, f"not known: {why_not}"
    try:
        answer: Any = orjson.loads(_core.Replay(beside.loaded.configuration).explain(raw))
    except (SignalwardenError, ValueError) as error:
        return None, f"not known: {error}"
    if not isinstance(answer, dict) or "bad" in answer:
        return (
            None,
            f"not known: {answer.get('bad') if isinstance(answer, dict) else 'the answer is no object'}",
        )
    return answer, ""
