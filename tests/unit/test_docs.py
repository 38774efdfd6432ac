"""The pages tell the truth: what they show runs, what they list is what the code has, and every link leads somewhere."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from jsonschema import Draft202012Validator

from signalwarden import _core, metrics, request_json, starter, tallies
from signalwarden.admin import CALLS, AdminReason
from signalwarden.app import App
from signalwarden.config import json_schema, read_settings
from signalwarden.decision_log import Recorder
from signalwarden.errors import ConfigurationError, sentence
from signalwarden.services import Client
from tests.asking import CORE_SETTINGS
from tests.snippets import run_shell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(
    {
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / "envoy").glob("*.md"),
        *(ROOT / "bench").glob("*.md"),
    }
)
RECORD_SCHEMA: Final = json.loads((DOCS / "schema" / "decision-record.schema.json").read_text())
# The day of the examples: which reviews are due depends on it.
EXAMPLES_NOW_US: Final = 1_795_514_400_000_000
GRPC: Final = {
    0: "OK", 3: "INVALID_ARGUMENT", 7: "PERMISSION_DENIED", 13: "INTERNAL", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED",
}  # fmt: skip


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str, info: str) -> list[str]:
    """The fenced blocks with this info string."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands below a heading, down to the next of its level."""
    level = heading.split(" ")[0]
    return text.split(f"\n{heading}\n")[1].split(f"\n{level} ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without the rows of dashes."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("-: ")]


def table(text: str) -> dict[str, list[str]]:
    """Rows whose first cell is code, by that code."""
    return {row[0].strip("`"): row[1:] for row in rows(text) if row[0].startswith("`")}


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("permit (", "permit(").replace("forbid (", "forbid(").strip()


# ---- what is shown runs ---------------------------------------------------------------------------------


def test_the_snippets_of_the_readme_run_as_they_stand(tmp_path: Path) -> None:
    script = "\n".join(blocks(text_of("README.md"), "sh run"))
    output = run_shell(script, tmp_path)
    assert '"okResponse"' in output, output
    assert 'signalwarden_decisions_total{reason="allowed"} 1.0' in output
    log = tmp_path / "refunds" / "var" / "decisions.jsonl"
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    hold(lines)
    assert [line["reason"] for line in lines if line["kind"] == "decision"] == ["allowed"]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name != "README.md" and "```sh run" in p.read_text()], ids=name_of
)
def test_the_snippets_of_the_pages_run_as_they_stand(page: Path, tmp_path: Path) -> None:
    run_shell("\n".join(blocks(page.read_text(), "sh run")), tmp_path)


def test_the_policies_of_the_readme_are_those_of_the_starter(tmp_path: Path) -> None:
    starter.create(tmp_path / "starter", now=starter_now())
    policies = squeezed("\n".join(p.read_text() for p in (tmp_path / "starter" / "policies").iterdir()))
    (shown,) = blocks(text_of("README.md"), "cedar")
    for policy in shown.split("\n\n"):
        assert squeezed(re.sub(r"//.*", "", policy)) in policies


def starter_now() -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(EXAMPLES_NOW_US / 1e6, UTC)


EXAMPLE_FILES: Final = {"register": "signals.yaml", "routes": "routes.yaml"}


def findings_of(file: str, text: str, folder: Path) -> list[str]:
    """What `check` says of one file of an example: a register beside the starter's routes, or routes alone."""
    made = folder / "starter"
    if not made.exists():
        starter.create(made, now=starter_now())
    names = ("routes.yaml", "signals.yaml", "entities.cedarschema", "entities.json")
    files = {name: (made / name).read_bytes() for name in names}
    if file == "routes.yaml":
        types = sorted({"Workload", *re.findall(r"resource: \{type: (\w+)", text)})
        files |= {"signals.yaml": b"signals: {}\n", "entities.json": b"[]\n"}
        files["entities.cedarschema"] = "".join(f"entity {name};\n" for name in types).encode()
    files[file] = text.encode()
    try:
        loaded = _core.Configuration.load(
            sorted(files.items()), settings=CORE_SETTINGS, now_us=EXAMPLES_NOW_US
        )
        findings = list(loaded.warnings)
    except ConfigurationError as error:
        findings = list(error.findings)  # type: ignore[arg-type]
    # There are no policies here, so nothing reads a signal.
    return [
        sentence(finding) for finding in findings if finding.file == file and finding.code != "unread_signal"
    ]


PAGES_OF_FILES = ["README.md", *(f"docs/{name}.md" for name in ("register", "feeds", "ssf", "routes"))]


@pytest.mark.parametrize("page", PAGES_OF_FILES)
def test_examples_of_files_are_found_as_the_page_says(page: str, tmp_path: Path) -> None:
    pattern = r"^```yaml (register|routes)\n(.*?)^```$(?:\n```text findings\n(.*?)^```$)?"
    examples = re.findall(pattern, text_of(page), re.MULTILINE | re.DOTALL)
    assert examples
    for kind, text, expected in examples:
        assert findings_of(EXAMPLE_FILES[kind], text, tmp_path) == expected.splitlines(), text


@pytest.mark.parametrize(
    ("page", "info"), [("docs/settings.md", "yaml"), ("docs/identity.md", "yaml settings")]
)
def test_examples_of_settings_are_good(page: str, info: str) -> None:
    shown = blocks(text_of(page), info)
    assert shown
    for text in shown:
        settings, findings = read_settings(text, now=starter_now())
        assert settings is not None, [sentence(finding) for finding in findings]
        assert findings == []
        Draft202012Validator(json.loads(json_schema())).validate(yaml.safe_load(text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_of_json_are_json(page: Path) -> None:
    for text in blocks(page.read_text(), "json"):
        json.loads(text)


# ---- what is listed is what the code has ------------------------------------------------------------------


def test_the_table_of_reasons_is_that_of_the_core() -> None:
    shown = table(section(text_of("docs/decisions.md"), "## Reasons"))
    expected = {
        code: [str(http), GRPC[grpc], "live" if live else "reserved", text]
        for code, http, grpc, live, text in _core.reasons()
    }
    assert list(shown.items()) == list(expected.items())


def test_the_runbook_has_a_line_for_each_reason() -> None:
    shown = table(section(text_of("docs/operations.md"), "## What to do about a reason"))
    assert list(shown) == [code for code, *_ in _core.reasons()]
    reserved = {code for code, (line,) in shown.items() if line == "never given by this version"}
    assert reserved == {code for code, _, _, live, _ in _core.reasons() if not live}


def test_worked_examples_are_cases_of_the_semantics() -> None:
    cases = {case["id"]: case for case in json.loads(text_of("tests/vectors/semantics.json"))["cases"]}
    shown = section(text_of("docs/decisions.md"), "## Worked examples").split("\n### ")[1:]
    assert len(shown) >= 10
    for example in shown:
        case = cases[example.splitlines()[0]]
        (policies,) = blocks(example, "cedar")
        assert squeezed(policies) == squeezed(" ".join(case["policy"]))
        assert f"Answer: `{case['expect']['reason']}`." in example
        did = {name: cells[2] for name, cells in table(example).items()}
        assert did == case["expect"]["influence"], example


def test_the_refusals_of_values_are_those_of_the_core() -> None:
    shown = table(section(text_of("docs/register.md"), "## Why a value is refused"))
    counted = [name for name in _core.Engine().counters() if name.startswith("signals_rejected_")]
    assert list(shown) == [name.removeprefix("signals_rejected_") for name in counted]
    rust = text_of("rust_core/core/src/signals/refusal.rs")
    for code, (text,) in shown.items():
        assert f'"{code}" "{text}"' in rust


def test_the_admin_api_is_as_its_table_says() -> None:
    text = section(text_of("docs/operations.md"), "## The admin API")
    calls = {name: cells[0] for name, cells in table(text).items() if " " in name}
    built = {
        f"{call.method} {call.path}": f"`{call.right}`" if call.right else "none"
        for call in CALLS
        if call.built
    }
    assert calls == built
    reasons = {name: cells[0] for name, cells in table(text).items() if " " not in name}
    assert reasons == {reason.code: str(reason.status) for reason in AdminReason if reason.status}


def test_every_metric_has_its_line() -> None:
    shown = table(section(text_of("docs/operations.md"), "## Metrics"))
    labelled = {f"{metrics.PREFIX}{name}_total{{{label}}}" for _, name, label, _ in metrics.FAMILIES}
    plain = {f"{metrics.PREFIX}{name}_total" for name in metrics.COUNTERS}
    gauges = {f"{metrics.PREFIX}{name}" for name in metrics.GAUGES} | {
        f"{metrics.PREFIX}configuration{{revision}}"
    }
    gauges |= {f"{metrics.PREFIX}{name}{{{label}}}" for _, name, label, _ in metrics.GAUGE_FAMILIES}
    kinds = {
        f"{metrics.PREFIX}{name}{'_total' if kind == 'counter' else ''}{{{','.join(labels)}}}": kind
        for name, (labels, kind, _) in tallies.LABELLED.items()
    }
    assert set(shown) == labelled | plain | gauges | set(kinds)
    expected = {name: kinds.get(name, "counter" if "_total" in name else "gauge") for name in shown}
    assert {name: cells[0] for name, cells in shown.items()} == expected


def definition(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    """What a `$ref` leads to."""
    found: dict[str, Any] | None = (
        schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else None
    )
    return found


def keys_of(node: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every key of the settings, with what stands in its column of defaults."""
    for key, declared in node.get("properties", {}).items():
        inner = definition(declared, schema) or declared
        default = json.dumps(declared["default"]) if "default" in declared else "required"
        optional = next(filter(None, (definition(part, schema) for part in declared.get("anyOf", ()))), None)
        item = definition(inner.get("items", {}), schema)
        named = next(iter(inner.get("patternProperties", {}).values()), {})
        entry = definition(named, schema)
        if item or entry or optional:
            yield path + key, default
            mark = "[]" if item else ".*" if entry else ""
            yield from keys_of(item or entry or optional or {}, schema, f"{path}{key}{mark}.")
        elif inner.get("properties"):
            yield from keys_of(inner, schema, f"{path}{key}.")
        else:
            yield path + key, default


def test_every_setting_has_its_line_and_its_default() -> None:
    schema = json.loads(json_schema())
    assert text_of("docs/schema/signalwarden.schema.json") == json_schema().decode()
    shown = {
        name: cells[0].strip("`") for name, cells in table(text_of("docs/settings.md")).items()
    }
    assert shown == dict(keys_of(schema, schema))


def test_every_key_of_a_contract_and_of_a_route_has_its_line() -> None:
    register = text_of("rust_core/core/src/signals/register.rs")
    known = set(re.findall(r'fields\.(?:take|require|require_word)\(\s*"(\w+)"', register))
    known |= set(re.findall(r'self\.(?:text|prose)\("(\w+)"\)', register))
    combine = text_of("rust_core/core/src/signals/combine.rs")
    known |= set(re.findall(r'self\.fields\.take\("(\w+)"\)', combine))
    known -= {"signals", "feeds", "strict_reviews"}
    assert set(table(section(text_of("docs/register.md"), "## Keys"))) == known
    routes = text_of("rust_core/core/src/route/load.rs")
    function = routes.split("fn route(")[1].split("\n    fn ")[0]
    known = set(re.findall(r'fields\.\w+\(\s*"(\w+)"', function)) | {"grant"}
    assert set(table(section(text_of("docs/routes.md"), "## Keys of a route"))) == known


@pytest.mark.parametrize(
    ("page", "heading"), [("docs/threat-model.md", "## Bounds"), ("docs/identity.md", "## Limits")]
)
def test_every_bound_is_as_the_page_says(page: str, heading: str) -> None:
    bounds = table(section(text_of(page), heading))
    assert bounds
    for name, cells in bounds.items():
        assert cells[0] == str(bound(name)), name


def bound(name: str) -> int:
    """A bound of the core; one may be given by another."""
    found = re.search(rf"pub const {name}: \w+ = ([\w* ]+);", text_of("rust_core/core/src/limits.rs"))
    assert found, name
    product = 1
    for factor in found[1].split("*"):
        product *= bound(factor) if factor.startswith("MAX") else int(factor)
    return product


def test_every_test_that_the_readme_names_exists() -> None:
    promises = [
        row
        for row in rows(section(text_of("README.md"), "## What it promises"))
        if re.fullmatch(r"I\d", row[0])
    ]
    assert [row[0] for row in promises] == [f"I{n}" for n in range(1, 8)]
    sources = "\n".join(
        path.read_text()
        for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "rust_core" / "core").rglob("*.rs")]
        if "target" not in path.parts
    )
    for row in promises:
        names = re.findall(r"`(\w+)`", row[3])
        assert names, row
        assert [name for name in names if not re.search(rf"\b(?:fn|def) {name}\b", sources)] == []


# ---- records ------------------------------------------------------------------------------------------------


def hold(lines: Iterable[dict[str, Any]]) -> None:
    """Every line is as its JSON Schema says."""
    for line in lines:
        one_kind = {**RECORD_SCHEMA, "oneOf": [{"$ref": f"#/$defs/{line['kind']}"}]}
        errors = [
            f"{error.json_path}: {error.message}"
            for error in Draft202012Validator(one_kind).iter_errors(line)
        ]
        assert errors == [], line


def test_the_schema_of_records_is_a_schema_and_names_every_reason() -> None:
    Draft202012Validator.check_schema(RECORD_SCHEMA)
    enumerated = RECORD_SCHEMA["$defs"]["decision"]["properties"]["reason"]["enum"]
    assert enumerated == [code for code, *_ in _core.reasons()]


def test_every_kind_of_change_and_transport_record_is_in_the_schema_and_on_its_page() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "python" / "signalwarden").rglob("*.py"))
    written = set(re.findall(r'(?:\.change|change_record)\(\s*"(\w+)"', sources))
    assert written == set(RECORD_SCHEMA["$defs"]["change"]["properties"]["change"]["enum"])
    page = text_of("docs/decision-record.md")
    assert set(table(section(page, "## `change`"))) == written
    events = re.search(r"for event, .* in zip\(\(([^)]*)\)", sources)
    assert events
    names = set(re.findall(r'"(\w+)"', events[1]))
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
    hold(records)
    assert records[-1]["refused_before"] == 2
    live = {code for code, _, _, live, _ in _core.reasons() if live}
    assert {record["reason"] for record in records} == live - {"log_unavailable"}
    seen = {signal["name"]: signal for record in records for signal in record["signals"]}
    assert set(seen) == set(yaml.safe_load(EVERYTHING["signals.yaml"])["signals"])
    assert "digest" in seen["alarm"]


def test_every_change_and_transport_record_is_as_its_schema_says(minimal_directory: Path) -> None:
    settings = minimal_directory / "signalwarden.yaml"
    log = minimal_directory / "var" / "decisions.jsonl"
    log.parent.mkdir()
    log.write_bytes(b'{"half')
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
            if call.built and call.right:
                app.refused(reader, call.right, "the right is not in its `may`")
        for enabled in (False, True):
            app.switch_publisher(
                "spiffe://prod.example/ops", "spiffe://prod.example/feed", None, enabled=enabled
            )
        app.revoke("spiffe://prod.example/ops", b'{"jti": "a", "issuer": "https://b", "reason": "c"}')
        app.revoke("spiffe://prod.example/ops", b'{"subject": "a", "reason": "c"}')
        app._up().recorder.change("stream_suspended", feed="idp", detail="nothing was heard")
        app._up().recorder.change("stream_resynchronised", actor="spiffe://prod.example/ops", feed="idp")
        app._up().recorder.transport("undelivered", count=1)
        app._up().recorder.transport("unknown_method", count=2)
    finally:
        app.stop()
    assert settings.exists()
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    lines += [json.loads(line) for line in lost()]
    hold(lines)
    changes = {line["change"] for line in lines if line["kind"] == "change"}
    assert changes == set(RECORD_SCHEMA["$defs"]["change"]["properties"]["change"]["enum"])
    assert {line["transport"] for line in lines if line["kind"] == "transport"} == {
        "undelivered",
        "unknown_method",
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


# ---- links and words ------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_place_of_the_machine_it_was_written_on(page: Path) -> None:
    text = page.read_text()
    places = ["/home/", "/root/", "/Users/", "DESIGN.md"]
    if len(ROOT.parts) > 2:
        places.append(f"{ROOT}/")
    assert [place for place in places if place in text] == []
