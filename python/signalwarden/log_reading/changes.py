"""Change and transport records in words: one sentence each, then whatever else the record says."""

from __future__ import annotations

from typing import Any, Final

from signalwarden.decision_log.parts import map_of
from signalwarden.log_reading.telling import Step, entries_of, shown, text_of

__all__ = ["SENTENCES", "TRANSPORTS", "change_story", "sentence"]

SENTENCES: Final[dict[str, str]] = {
    "server_started": "the server started, version {version}",
    "server_stopped": "the server stopped",
    "configuration_loaded": "{actor} loaded revision {revision:.12}",
    "configuration_refused": "{actor} brought a directory that was refused: revision {revision:.12} goes on",
    "client_refused": "the admin API refused {client}: {detail}",
    "time_set_back": "the clock was set back by more than an hour: tasks, approvals and overrides of before have ended",
    "publisher_disabled": "{actor} switched the publisher {publisher} off",
    "publisher_enabled": "{actor} switched the publisher {publisher} on again",
    "authority_changed": "{authority} has {members} members now",
    "revoked": "{actor} revoked what `revoked` names: {why}",
    "approval_asked": "{actor} asked for a yes to one call: {approval_id}",
    "approval_answered": "{actor} answered the question {approval_id}, which is {state} with that",
    "approval_used": "the yes to {approval_id} was used by the decision {decision_id}",
    "approval_released": "the yes to {approval_id} can be used again",
    "override_proposed": "{actor} proposed an override; a second client must confirm it before {confirm_before}",
    "signal_overridden": "{actor} confirmed an override, which is in force until {expires_at}",
    "override_ended": "the override of {signal} for {subject} ended",
    "task_begun": "{actor} began the task {task_id} ({type}) for {principal}, until {expires_at}",
    "task_ended": "{actor} ended the task {task_id}: {how}",
    "workflow_moved": "{actor} made the workflow {workflow} {state}",
    "standing_lost": "{principal} lost its standing: {detail}",
    "call_refused": "the call {call} of {actor} was refused: {reason}",
    "log_repaired": "half a line at the end of the log was cut off, {bytes_cut} bytes",
    "log_recovered": "{records} records of a process that died were written, {already_written} were in the log already",
    "log_key_made": "a key was made to sign the log: {key}",
    "log_tree_begun": "the tree over the log began, and took in {records} records that were there",
    "log_tree_caught_up": "the tree over the log caught up with {records} records, as after a crash",
    "log_tree_broken": "THE LOG IS NOT WHAT WAS SIGNED: {why}; a new tree begins, {origin}",
    "records_lost": "{count} change or transport records found no room",
    "records_not_shipped": "{count} records were pruned before the sink {sink} took them",
    "stream_suspended": "the stream {feed} is suspended: {detail}",
    "stream_resynchronised": "{actor} vouches for the stream {feed} again",
}  # fmt: skip
"""By what changed. One that is not here is told by its keys."""

TRANSPORTS: Final[dict[str, str]] = {
    "undelivered": "{count} Check calls never arrived whole: too large, broken off, or too many at once",
    "unknown_method": "{count} calls of another gRPC method: is `transport_api_version: V3` set in Envoy?",
    "turned_away": "{count} connections found no room at the front door: who opens so many?",
    "refused_client": "{count} calls of a client that is not in `tls.check_clients`: {client}",
}

_KNOWN: Final = frozenset({"v", "kind", "time", "change_id", "event_id", "change", "transport"})
MAX_WORDS: Final = 20
"""Sentences of a reload that are shown; `--json` has those of the record."""


class _Keys(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "-"


def sentence(record: dict[str, Any]) -> str:
    """What happened."""
    kind = text_of(record.get("kind"))
    what = text_of(record.get(kind))
    template = (SENTENCES if kind == "change" else TRANSPORTS).get(what)
    if template is None:
        return f"a {kind} record: {what or 'it does not say of what'}"
    plain = {
        key: "-" if value is None else value if isinstance(value, int) else str(value)
        for key, value in record.items()
    }
    try:
        return template.format_map(_Keys(plain))
    except (ValueError, KeyError, IndexError):
        return f"a {kind} record: {what}"


def change_story(record: dict[str, Any]) -> list[Step]:
    """The sentence, words and findings, then every other key."""
    what = Step("what")
    what.say(sentence(record), "bold")
    steps = [what]
    words = entries_of(record.get("words"))
    if words:
        said = Step("words")
        for word in words[:MAX_WORDS]:
            said.say(f"{word.get('direction')}: {word.get('part')}: {word.get('sentence')}")
        if len(words) > MAX_WORDS:
            said.say(f"… and {len(words) - MAX_WORDS} more", "dim")
        steps.append(said)
    more = Step("record")
    for key, value in record.items():
        if key in _KNOWN or (key == "words" and words) or value in (None, "", [], {}):
            continue
        if key == "difference":
            for part, changes in map_of(value).items():
                told = ", ".join(f"{kind} {', '.join(map(str, names))}" for kind, names in map_of(changes).items()
                                 if names and isinstance(names, list))  # fmt: skip
                if told:
                    more.say(f"{part}: {told}")
        else:
            more.say(f"{key}: {value if isinstance(value, str) else shown(value)}")
    if more.lines:
        steps.append(more)
    return steps
