"""From a line of Envoy's access log to the record of its decision, and back, as docs/watching.md says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.pages import ROOT, blocks, text_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Product, RunningEnvoy, Stage

PAGE = "docs/watching.md"
REFUND = "/v1/accounts/42/refunds"


def shown(pattern: str) -> str:
    """The command of the page that begins so, without its comment."""
    section = text_of(PAGE).split("## From Envoy's access log")[1].split("\n## ")[0]
    (line,) = [line for line in "\n".join(blocks(section, "sh")).splitlines() if line.startswith(pattern)]
    return re.split(r"\s{2,}#", line)[0]


def run(command: str, directory: Path, access_log: Path, decision_id: str) -> list[dict[str, Any]]:
    text = command.replace("DIR/", f"{directory}/").replace("access.log", str(access_log))
    found = subprocess.run(
        ["sh", "-c", f'id="{decision_id}"\n{text}'], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_line_of_the_access_log_and_the_record_are_found_from_each_other(
    product_envoy: RunningEnvoy, healthy: Product, stage: Stage, allowed: bool
) -> None:
    healthy.publish("posture", "ok" if allowed else "compromised")
    stage.upstream.calls.clear()
    answer = product_envoy.agent.post(REFUND, json={"amount": 1250})
    if allowed:
        decision_id = dict(stage.upstream.calls[0]["headers"])["x-signalwarden-decision-id"]
    else:
        decision_id = answer.json()["decision_id"]
    line = product_envoy.access_log(decision_id, "decision_id")
    record = healthy.record(decision_id)
    grep_record, grep_line = shown("grep -h"), shown('grep "')
    assert run(grep_record, healthy.directory, product_envoy.access_log_file, decision_id) == [record]
    assert run(grep_line, healthy.directory, product_envoy.access_log_file, decision_id) == [line]
    assert line["status"] == answer.status_code == (200 if allowed else 403)
    assert (line["reason"], line["revision"]) == (record["reason"], record["policies"]["revision"])


def test_the_page_shows_the_access_log_that_is_shipped() -> None:
    """Not all of its fields, but those that it shows as they are."""
    (text,) = blocks(text_of(PAGE), "yaml envoy")
    (short,) = yaml.safe_load(text)["access_log"]
    shipped = yaml.safe_load((ROOT / "envoy" / "gateway.yaml").read_text())
    (chain,) = shipped["static_resources"]["listeners"][0]["filter_chains"]
    (full,) = chain["filters"][0]["typed_config"]["access_log"]
    fields = short["typed_config"]["log_format"]["json_format"]
    known = full["typed_config"]["log_format"]["json_format"]
    assert fields == {key: known[key] for key in fields}
    assert short["name"] == full["name"]
    assert short["typed_config"]["@type"] == full["typed_config"]["@type"]


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed here")
def test_the_calls_behind_a_reason_are_found(product_envoy: RunningEnvoy, healthy: Product) -> None:
    healthy.publish("posture", "compromised")
    answer = product_envoy.agent.post(REFUND, json={"amount": 1250})
    decision_id = answer.json()["decision_id"]
    healthy.record(decision_id)
    product_envoy.access_log(decision_id, "decision_id")
    found = run(shown("jq -r"), healthy.directory, product_envoy.access_log_file, decision_id)
    assert decision_id in {line["decision_id"] for line in found}
    assert {line["reason"] for line in found} == {"policy_denied"}
