"""The dashboard is one that Grafana reads, and every query is PromQL over what a running server exposes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from signalwarden import _core
from tests.collector import collecting
from tests.serving import running
from tests.unit.test_alerts import SCRAPED, STATES, families, grouped, selectors

ROOT: Final = Path(__file__).parents[2]
BOARD: Final[dict[str, Any]] = json.loads((ROOT / "docs" / "grafana" / "signalwarden.json").read_text())
PANELS: Final = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES: Final = {
    f"{panel['title']} {target['refId']}": (target["expr"], target["legendFormat"])
    for panel in PANELS
    for target in panel["targets"]
}
# What Grafana puts in place of its variables.
VARIABLES: Final = {"$__rate_interval": "5m", "$instance": ".+"}
ENDINGS: Final = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
STAGES: Final = {"decode", "evaluate", "route", "identify", "gather", "policies", "encode", "total"}


def filled(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def test_panels_have_a_place_a_title_and_a_word_each() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert [target["refId"] for target in panel["targets"]] == [
            chr(ord("A") + at) for at in range(len(panel["targets"]))
        ]
    assert {each["name"] for each in BOARD["templating"]["list"]} == {"datasource", "instance"}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_promql_over_what_is_exposed(name: str) -> None:
    expression, legend = QUERIES[name]
    known = families()
    text = filled(expression)
    found = list(selectors(promql_parser.parse(text)))
    assert found
    values = {
        "reason": {code for code, *_ in _core.reasons()},
        "state": STATES,
        "stage": STAGES,
        "outcome": {"allow", "deny"},
        "result": {"done", "refused"},
    }
    for selector in found:
        assert selector.name in known, selector.name
        labels = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert set(labels) <= known[selector.name] | SCRAPED
        words = [(label, word) for label, value in labels.items() for word in value.split("|")]
        assert all(word in values.get(label, {word}) for label, word in words)
        assert labels["instance"] == ".+"
    exposed = set().union(*(known[str(selector.name)] for selector in found)) | SCRAPED
    assert grouped(text) <= exposed
    # What a line is called by is a label that the expression keeps.
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped(text)


def test_its_annotation_is_promql_too() -> None:
    for each in BOARD["annotations"]["list"]:
        names = {selector.name for selector in selectors(promql_parser.parse(filled(each["expr"])))}
        assert names <= set(families())


def test_a_running_server_exposes_every_metric_that_is_named(minimal_directory: Path) -> None:
    with collecting() as collector:
        with (minimal_directory / "signalwarden.yaml").open("a") as file:
            file.write(f'telemetry: {{otlp: {{endpoint: "http://127.0.0.1:{collector.port}"}}}}\n')
        with running(minimal_directory) as app:
            text, _ = app.metrics_text()
    exposed = {
        family.name + ending
        for family in text_string_to_metric_families(text.decode())
        for ending in ENDINGS[family.type]
    }
    named = {
        str(selector.name)
        for expression, _ in QUERIES.values()
        for selector in selectors(promql_parser.parse(filled(expression)))
    }
    assert named <= exposed
    assert len(named) > 30
