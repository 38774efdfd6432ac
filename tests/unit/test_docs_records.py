"""Records of decisions, changes and transport events are as their schema says, and their page names every key."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from jsonschema import Draft202012Validator

from signalwarden import _core, request_json
from signalwarden.admin import CALLS
from signalwarden.app import App
from signalwarden.decision_log import Recorder
from signalwarden.decision_log.records import change_record, transport_record
from signalwarden.errors import ConfigurationError
from signalwarden.front import Unreached
from signalwarden.services import Client
from signalwarden.state import SqliteStore
from tests.asking import CORE_SETTINGS
from tests.four_eyes import every_record

if TYPE_CHECKING:
    pass
from tests import asking
from tests.pages import RECORD_SCHEMA, ROOT, hold, section, table, text_of
from tests.unit.test_vectors_reasons import CASES, engine_for, request_of

# ---- records ------------------------------------------------------------------------------------------------


def test_the_schema_of_records_is_a_schema_and_names_every_reason() -> None:
    Draft202012Validator.check_schema(RECORD_SCHEMA)
    enumerated = RECORD_SCHEMA["$defs"]["decision"]["properties"]["reason"]["enum"]
    assert enumerated == [code for code, *_ in _core.reasons()]


def test_every_kind_of_change_and_transport_record_is_in_the_schema_and_on_its_page() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "python" / "signalwarden").rglob("*.py"))
    written = set(re.findall(r'(?:\.change|change_record|\._record)\(\s*"(\w+)"', sources))
    assert written == set(RECORD_SCHEMA["$defs"]["change"]["properties"]["change"]["enum"])
    page = text_of("docs/decision-record.md")
    assert set(table(section(page, "## `change`"))) == written
    names = set(Unreached._fields) | set(re.findall(r'\.transport\(\s*"(\w+)"', sources))
    assert names == set(RECORD_SCHEMA["$defs"]["transport"]["properties"]["transport"]["enum"])
    assert set(table(section(page, "## `transport`"))) == names


def test_every_key_of_a_record_is_on_its_page() -> None:
    page = text_of("docs/decision-record.md")
    definitions = RECORD_SCHEMA["$defs"]
    for part in ("decision", "request", "principal", "signal", "policies", "change", "transport"):
        for key in definitions[part]["properties"]:
            assert f"`{key}`" in page, f"{part}: {key}"


CONTRACT: Final = (
    "description: d, owner: o@x, purpose: p, review_by: 2099-01-01, "
    'sources: [{kind: push, publisher: "spiffe://prod.example/feed", assurance: sourced}]'
)
HEADER: Final = CONTRACT.split("sources")[0] + (
    "sources: [{kind: header, header: x-task-type, assurance: self_asserted}]"
)
EVERYTHING: Final = {
    "routes.yaml": "routes:\n"
    + "".join(
        f"  - {{match: {{host: '*', method: POST, path: '/{name}/{{id}}'}}, action: {name}.do,"
        f" resource: {{type: Thing, id: '{{id}}'}}, tier: {tier}, sensitivity: {sensitivity}}}\n"
        for name, tier, sensitivity in [
            ("open", "runtime", "low"),
            ("word", "runtime", "high"),
            ("sum", "runtime", "low"),
            ("group", "coarse", "low"),
            ("task", "jit", "low"),
            ("yes", "approval", "medium"),
        ]
    )
    + "  - {match: {host: '*', method: GET, path: '/open/{id}'}, action: open.get, resource: {type: Thing, id: '{id}'},"
    " args: {query: {n: long}}, system: things, tier: coarse, sensitivity: low}\n",
    "signals.yaml": f"""\
signals:
  score: {{type: long, subject: principal, max_age: 5m, influence: grant, used_by: [open.do], {CONTRACT}}}
  alarm: {{type: "enum[on, off]", subject: global, max_age: 5m, influence: grant, used_by: [open.do], sensitivity: secret, {CONTRACT}}}
  task: {{type: string, subject: request, influence: restrict, used_by: [word.do], {HEADER}}}
  risk: {{type: long, subject: global, max_age: 5m, influence: grant, used_by: [sum.do], {CONTRACT}}}
  tags: {{type: set, subject: resource, max_age: 5m, influence: observe, used_by: [open.do], {CONTRACT}}}
  ratio: {{type: decimal, subject: device, max_age: 5m, influence: observe, used_by: [open.do], {CONTRACT}}}
  since: {{type: datetime, subject: global, max_age: 5m, influence: observe, used_by: [open.do], {CONTRACT}}}
  from: {{type: ip, subject: principal, max_age: 5m, influence: observe, used_by: [open.do], {CONTRACT}}}
  shut: {{type: bool, subject: task, max_age: 5m, influence: observe, used_by: [open.do], {CONTRACT}}}
""",
    "entities.cedarschema": "entity Role; entity Workload in [Role] = {device: String}; entity Thing;\n",
    "entities.json": json.dumps(
        [
            {
                "uid": {"type": "Workload", "id": "spiffe://prod.example/a"},
                "attrs": {"device": "d1"},
                "parents": [],
            }
        ]
    ),
    "policies/all.cedar": """
permit(principal, action, resource);
forbid(principal, action == Action::"open.do", resource) unless { context.signals has score && context.signals.score > 2 };
forbid(principal, action == Action::"open.do", resource) when { context.signals has alarm && context.signals.alarm == "on" };
forbid(principal, action == Action::"word.do", resource) unless { context.signals has task && context.signals.task == "x" };
forbid(principal, action == Action::"sum.do", resource)
  when { context.signals has risk && context.signals.risk * 9223372036854775807 > 5 };
forbid(principal in Role::"none", action == Action::"group.do", resource);
""",
}


TASK: Final = "01a20d2e-e225-7eba-82f3-6812fbaf3409"
TASKS: Final[dict[str, dict[str, Any]]] = {
    "task_begun": {
        "actor": "spiffe://prod.example/o", "task_id": TASK, "principal": "spiffe://prod.example/a", "type": "t",
        "parent": None, "decision_id": TASK, "expires_at": "2026-11-24T10:00:00.000000Z", "grant_sha256": "0" * 64,
    },
    "task_ended": {"actor": "spiffe://prod.example/o", "task_id": TASK, "how": "completed"},
    "standing_lost": {
        "principal": "spiffe://prod.example/a", "at": "2026-11-24T10:00:00.000000Z", "detail": "session revoked",
    },
    "workflow_moved": {"actor": "spiffe://prod.example/o", "workflow": "w", "state": "ended"},
}  # fmt: skip
"""As tasks.py writes them; tests/e2e/test_tasks.py holds those of a running server to the schema."""


def engine_of(files: dict[str, str], **options: Any) -> _core.Engine:
    engine = _core.Engine(influence="all", **options)
    contents = sorted((name, text.encode()) for name, text in files.items())
    engine.swap(_core.Configuration.load(contents, settings=CORE_SETTINGS, now_us=time.time_ns() // 1000))
    return engine


def tell(engine: _core.Engine, *signals: tuple[str, str, Any]) -> None:
    now_us = time.time_ns() // 1000
    observed = starter_time(now_us)
    body = [{"name": n, "subject": s, "value": v, "observed_at": observed} for n, s, v in signals]
    admission = engine.admit(
        json.dumps({"signals": body}).encode(), publisher="spiffe://prod.example/feed", now_us=now_us
    )
    assert admission.rejected == []
    engine.apply(admission.changes, now_us=now_us)


def starter_time(micros: int) -> str:
    from signalwarden.decision_log import rfc3339

    return rfc3339(micros)


def ask(
    path: str, *, method: str = "POST", principal: str = "spiffe://prod.example/a", **headers: str
) -> bytes:
    http = {"id": "7", "method": method, "host": "h", "path": path, "headers": headers}
    return request_json.to_bytes(
        json.dumps({"attributes": {"source": {"principal": principal}, "request": {"http": http}}})
    )


def drained(engine: _core.Engine) -> list[dict[str, Any]]:
    lines, _ = engine.drain(max_records=100, wait_ms=0)
    return [json.loads(line) for line in lines.splitlines()]


def test_a_decision_for_every_reason_is_as_its_schema_says() -> None:
    unloaded = _core.Engine()
    unloaded.check(ask("/open/1"))
    records = drained(unloaded)
    engine = engine_of(EVERYTHING)
    engine.check(ask("/open/1"))  # nothing is known yet
    agent = "spiffe://prod.example/a"
    tell(
        engine, ("score", agent, 1), ("alarm", "*", "off"), ("risk", "*", 9), ("tags", 'Thing::"1"', ["a", "b"]),
        ("ratio", "d1", "1.25"), ("since", "*", "2026-11-24T10:00:00Z"), ("from", agent, "::1"),
    )  # fmt: skip
    engine.check(ask("/open/1"))
    time.sleep(0.001)
    tell(engine, ("score", agent, 4))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for request in [
        b"\xff", ask("/open/1", traceparent=trace), ask("/open/1?x=1"), ask("/open/1?n=4", method="GET"),
        ask("/open/1?n=x", method="GET"), ask("/nowhere"), ask("/open/1%2f"), ask("/word/1", **{"x-task-type": "x"}),
        ask("/word/1", **{"x-task-type": "y"}), ask("/sum/1"), ask("/group/1", principal="spiffe://prod.example/unlisted"),
        ask("/task/1"), ask("/yes/1"), ask("/open/1", principal=""), ask("/open/1", principal="CN=a"),
        ask("/open/1", principal="spiffe://other.example/a"),
    ]:  # fmt: skip
        engine.check(request)
    records += drained(engine)
    nothing = engine_of({**EVERYTHING, "policies/all.cedar": ""})
    nothing.check(ask("/group/1"))
    records += drained(nothing)
    small = engine_of(EVERYTHING, log_capacity=1)
    for _ in range(3):
        small.check(ask("/group/1"))
    records += drained(small)
    small.check(ask("/group/1"))
    records += drained(small)
    for case in CASES:
        other = engine_for(case, time.time_ns() // 1000)
        asking.answered(other, request_of(case))
        records += drained(other)
    hold(records)
    assert [record["refused_before"] for record in records if "refused_before" in record] == [2]
    live = {code for code, _, _, live, _ in _core.reasons() if live}
    assert {record["reason"] for record in records} == live - {
        "log_unavailable"
    } - asking.OF_TASKS_AND_QUESTIONS
    seen = {signal["name"]: signal for record in records for signal in record["signals"]}
    assert set(seen) >= set(yaml.safe_load(EVERYTHING["signals.yaml"])["signals"])
    assert "digest" in seen["alarm"]


def test_every_change_and_transport_record_is_as_its_schema_says(
    minimal_directory: Path, tmp_path: Path
) -> None:
    settings = minimal_directory / "signalwarden.yaml"
    log = minimal_directory / "var" / "decisions.jsonl"
    log.parent.mkdir()
    log.write_bytes(b'{"half')
    of_before = _core.Engine(ring=log.with_name("decisions.ring"), ring_bytes=1 << 20)
    of_before.check(b"")
    for left_behind in (
        change_record("server_started", at_us=time.time_ns() // 1000, actor="server", version="0"),
        transport_record("undelivered", at_us=time.time_ns() // 1000, count=1),
    ):
        assert of_before.note(left_behind)
    of_before.release()
    routes = minimal_directory / "routes.yaml"
    good = routes.read_text()
    (minimal_directory / "signals.yaml").write_text(
        "signals:\n  open: {type: bool, subject: global, max_age: 1h, influence: grant, used_by: [page.read], "
        f"{CONTRACT}}}\n"
    )
    client = (
        f'id: "spiffe://prod.example/feed", may: [publish], token_sha256: "{"0" * 64}", '
        'expires: "2099-01-01T00:00:00Z"'
    )
    settings.write_text(f"{settings.read_text()}clients: [{{{client}}}]\n")
    app = App(minimal_directory)
    app.start()
    try:
        app.reload("SIGHUP")
        routes.write_text(good + "more: 1\n")
        with pytest.raises(ConfigurationError):
            app.reload("spiffe://prod.example/ops")
        routes.write_text(good)
        assert app.authenticate(b"nobody's") is None
        reader = Client("spiffe://prod.example/reader", frozenset())
        for call in CALLS:
            if call.right:
                app.refused(reader, call.right, "the right is not in its `may`")
        for enabled in (False, True):
            app.switch_publisher(
                "spiffe://prod.example/ops", "spiffe://prod.example/feed", None, enabled=enabled
            )
        app.revoke("spiffe://prod.example/ops", b'{"jti": "a", "issuer": "https://b", "reason": "c"}')
        app.revoke("spiffe://prod.example/ops", b'{"subject": "a", "reason": "c"}')
        app._up().recorder.change("authority_changed", authority="keys:https://a", members=0)
        for change, told in TASKS.items():
            app._up().recorder.change(change, **told)
        tree = {"actor": "server", "origin": "signalwarden/prod.example/decisions"}
        app._up().recorder.change("time_set_back", actor="server")
        app._up().recorder.change("log_tree_begun", **tree, records=7, size=7)
        app._up().recorder.change("log_tree_caught_up", **tree, records=7, size=9)
        app._up().recorder.change("log_tree_broken", **tree, why="a line was changed")
        app._up().recorder.change("time_set_back", actor="server")
        app._up().recorder.change("stream_suspended", feed="idp", detail="nothing was heard")
        app._up().recorder.change("records_not_shipped", actor="server", sink="far", count=3)
        app._up().recorder.change("stream_resynchronised", actor="spiffe://prod.example/ops", feed="idp")
        app._up().recorder.transport("undelivered", count=1)
        app._up().recorder.transport("unknown_method", count=2)
        app._up().recorder.transport("turned_away", count=4)
        app._up().recorder.transport("refused_client", count=3, client=None, detail="it proved nothing")
    finally:
        app.stop()
    assert settings.exists()
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    lines += [json.loads(line) for line in lost()]
    lines += [json.loads(line) for line in every_record(SqliteStore(tmp_path / "desks" / "state.db"))]
    hold(lines)
    changes = {line["change"] for line in lines if line["kind"] == "change"}
    assert changes == set(RECORD_SCHEMA["$defs"]["change"]["properties"]["change"]["enum"])
    assert {line["transport"] for line in lines if line["kind"] == "transport"} == {
        "undelivered",
        "unknown_method",
        "turned_away",
        "refused_client",
    }


def lost() -> list[bytes]:
    """What a recorder says after a log that was full for long."""
    taken: list[bytes] = []
    full = True

    class Log:
        def note(self, line: bytes) -> bool:
            if not full:
                taken.append(line)
            return not full

    recorder = Recorder(Log())
    for _ in range(1_030):
        recorder.transport("undelivered", count=1)
    full = False
    recorder.retry()
    return taken[-1:]
