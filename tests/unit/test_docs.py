"""The pages tell the truth: what they show runs, what they list is what the code has, and every link leads somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from jsonschema import Draft202012Validator

from signalwarden import _core, families, metrics, starter
from signalwarden.admin import CALLS, AdminReason
from signalwarden.config import json_schema, read_settings
from signalwarden.errors import ConfigurationError, sentence
from signalwarden.log_reading import runbook
from signalwarden.tokens import desk
from tests.asking import CORE_SETTINGS
from tests.snippets import run_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
from tests.pages import (
    EXAMPLES_NOW_US,
    GRPC,
    PAGES,
    ROOT,
    blocks,
    hold,
    name_of,
    rows,
    section,
    squeezed,
    table,
    text_of,
)


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
            sorted(files.items()), settings=settings_of(text), now_us=EXAMPLES_NOW_US
        )
        findings = list(loaded.warnings)
    except ConfigurationError as error:
        findings = list(error.findings)  # type: ignore[arg-type]
    # There are no policies here, so nothing reads a signal.
    return [
        sentence(finding) for finding in findings if finding.file == file and finding.code != "unread_signal"
    ]


def settings_of(register: str) -> bytes:
    """Settings that name the issuers whose claims an example takes."""
    issuers = "".join(
        f"{{issuer: {issuer}, audience: [payments], keys: {{file: keys.json}}}}, "
        for issuer in sorted(set(re.findall(r'issuer: ("https[^"]+")', register)))
    )
    if not issuers:
        return CORE_SETTINGS
    text = f"trust_domain: prod.example\nidentity: {{sources: [envoy_peer, oauth], oauth: [{issuers}]}}\n"
    settings, findings = read_settings(text, now=starter_now())
    assert settings is not None, [sentence(finding) for finding in findings]
    return settings.for_core()


PAGES_OF_FILES = ["README.md", *(f"docs/{name}.md" for name in ("register", "feeds", "ssf", "routes"))]


@pytest.mark.parametrize("page", PAGES_OF_FILES)
def test_examples_of_files_are_found_as_the_page_says(page: str, tmp_path: Path) -> None:
    pattern = r"^```yaml (register|routes)\n(.*?)^```$(?:\n```text findings\n(.*?)^```$)?"
    examples = re.findall(pattern, text_of(page), re.MULTILINE | re.DOTALL)
    assert examples
    for kind, text, expected in examples:
        assert findings_of(EXAMPLE_FILES[kind], text, tmp_path) == expected.splitlines(), text


@pytest.mark.parametrize(
    ("page", "info"),
    [("docs/settings.md", "yaml"), ("docs/identity.md", "yaml settings"), ("docs/log-sinks.md", "yaml")],
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
    assert runbook.written_into(text_of("docs/operations.md")) == text_of("docs/operations.md")
    assert list(runbook.RUNBOOK) == [code for code, *_ in _core.reasons()]
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
        f"{call.method} {call.path}": " or ".join(
            f"`{right}`" for right in (call.right, call.or_right) if right
        )
        or "none"
        for call in CALLS
    }
    assert calls == built
    reasons = {name: cells[0] for name, cells in table(text).items() if " " not in name}
    assert reasons == {reason.code: str(reason.status) for reason in AdminReason if reason.status}


def test_the_open_calls_of_the_admin_api_are_those_of_the_threat_model() -> None:
    told = table(section(text_of("docs/threat-model.md"), "### A neighbour on loopback"))
    assert told.keys() == {call.path for call in CALLS if call.right is None}


def test_the_map_of_the_house_names_every_module() -> None:
    told = section(text_of("CONTRIBUTING.md"), "## Map of the house")
    package = ROOT / "python/signalwarden"
    names = [f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"]
    names += [path.name for path in package.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in names if not re.search(rf"(?<![\w/]){re.escape(name)}", told)] == []


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
        for name, (labels, kind, _) in families.LABELLED.items()
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
        named: dict[str, Any] = next(iter(inner.get("patternProperties", {}).values()), {})
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
    shown = {name: cells[0].strip("`") for name, cells in table(text_of("docs/settings.md")).items()}
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


def test_what_a_flood_may_cost_is_as_the_page_says() -> None:
    text = re.sub(r"\s+", " ", section(text_of("docs/identity.md"), "## First sight and after"))
    assert f"At most {desk.MAX_WAITING} calls are validated at once, {desk.MAX_PER_PEER} of one peer" in text
    assert f"{desk.PEER_BURST} bad tokens in a row and {desk.PEER_A_SECOND:g} a second" in text
    assert f"{desk.STRANGERS_BURST} bad tokens, then {desk.STRANGERS_A_SECOND:g} a second" in text
    assert f"known for {desk.REMEMBER_S:g} s, {desk.MAX_REMEMBERED:,} tokens" in text
