"""The alert rules are rules: Prometheus reads them, what they name is exposed, and each has its page of the runbook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from signalwarden import _core, metrics
from signalwarden.app import App
from signalwarden.families import LABELLED

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "docs" / "alerts" / "signalwarden.rules.yml"
GROUPS: Final[list[dict[str, Any]]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: Final = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
STATES: Final = {"fresh", "stale", "missing", "disputed", "unverified", "future"}
# Prometheus adds these to what it scrapes.
SCRAPED: Final = {"instance", "job"}


def families() -> dict[str, set[str]]:
    """The labels of every sample that the tables declare, by its name."""
    known = {f"{name}_total": {label} for _, name, label, _ in metrics.FAMILIES}
    known |= {name: {label} for _, name, label, _ in getattr(metrics, "GAUGE_FAMILIES", ())}
    known |= {f"{name}_total": set() for name in metrics.COUNTERS}
    known |= {name: set() for name in metrics.GAUGES} | {"configuration": {"revision"}}
    for name, (labels, kind, _) in LABELLED.items():
        endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[kind]
        known |= {f"{name}{end}": {*labels, *(["le"] if end == "_bucket" else [])} for end in endings}
    return {metrics.PREFIX + name: labels for name, labels in known.items()}


def selectors(expression: object) -> Iterator[promql_parser.VectorSelector]:
    """Every selector of a parsed expression."""
    match expression:
        case promql_parser.VectorSelector():
            yield expression
        case promql_parser.MatrixSelector():
            yield expression.vector_selector
        case promql_parser.BinaryExpr():
            yield from selectors(expression.lhs)
            yield from selectors(expression.rhs)
        case promql_parser.Call():
            for argument in expression.args:
                yield from selectors(argument)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from selectors(expression.expr)
        case promql_parser.NumberLiteral():
            return
        case _:
            pytest.fail(f"{expression!r} is not looked into")


def grouped(text: str) -> set[str]:
    """Labels that an expression groups by."""
    return {label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", text) for label in labels.split(",")}


def test_the_file_is_as_prometheus_reads_it() -> None:
    text = yaml.safe_load(RULES.read_text())
    assert set(text) == {"groups"}
    names = [group["name"] for group in GROUPS]
    assert len(names) == len(set(names))
    assert sum(len(group["rules"]) for group in GROUPS) == len(ALERTS) >= 15
    for group in GROUPS:
        assert set(group) == {"name", "rules"}
    for name, rule in ALERTS.items():
        assert re.fullmatch(r"Signalwarden[A-Z][A-Za-z]+", name)
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}, name
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s")), name
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, name


@pytest.mark.parametrize("name", ALERTS)
def test_an_expression_is_promql_over_what_is_exposed(name: str) -> None:
    known = families()
    expression = promql_parser.parse(ALERTS[name]["expr"])
    found = list(selectors(expression))
    assert found
    for selector in found:
        assert selector.name in known, selector.name
        labels = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert set(labels) <= known[selector.name] | SCRAPED
        values = {
            "reason": {code for code, *_ in _core.reasons()},
            "state": STATES,
            "result": {"done", "refused"},
        }
        assert all(value in values.get(label, {value}) for label, value in labels.items())
    exposed = set().union(*(known[str(selector.name)] for selector in found)) | SCRAPED
    assert grouped(ALERTS[name]["expr"]) <= exposed


@pytest.mark.parametrize(
    "expression",
    ["rate(signalwarden_panics_total) > 0", "sum by (x (signalwarden_ready)", "signalwarden_ready =="],
)
def test_what_is_no_expression_is_found(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        promql_parser.parse(expression)


@pytest.mark.parametrize("name", ALERTS)
def test_a_text_names_labels_that_its_expression_keeps(name: str) -> None:
    rule = ALERTS[name]
    text = " ".join(rule["annotations"].values())
    kept = grouped(rule["expr"])
    if not kept:
        first = next(selectors(promql_parser.parse(rule["expr"])))
        kept = families()[str(first.name)] | SCRAPED
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept
    assert text.count("{{") == text.count("}}")


def test_every_alert_has_its_page_of_the_runbook_and_every_page_an_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = re.findall(r"^### (Alert: .*)$", page, re.MULTILINE)
    anchors = {
        "docs/operations.md#" + re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings
    }
    assert {rule["annotations"]["runbook"] for rule in ALERTS.values()} == anchors


def test_what_is_exposed_by_a_running_server_is_what_the_tables_say(minimal_directory: Path) -> None:
    app = App(minimal_directory)
    app.start()
    try:
        text, _ = app.metrics_text()
    finally:
        app.stop()
    families_now = list(text_string_to_metric_families(text.decode()))
    seen = {sample.name for family in families_now for sample in family.samples}
    assert seen <= set(families())
    types = {family.name: family.type for family in families_now}
    for name, (_, kind, _) in LABELLED.items():
        assert types[metrics.PREFIX + name] == kind
    for plain in ("panics_total", "log_healthy", "ready", "live_signals", "state_failures_total"):
        assert metrics.PREFIX + plain in seen
