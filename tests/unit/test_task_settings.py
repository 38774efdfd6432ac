"""What `signalwarden.yaml` says of tasks, approvals and overrides: its defaults, its bounds, and as the core reads it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from signalwarden.task_settings import ApprovalSettings, OverrideSettings, TaskSettings

SECOND = 1_000_000
MINUTE = 60 * SECOND


def test_what_is_left_out_has_defaults() -> None:
    assert TaskSettings().for_core() == {
        "ttl_us": 5 * MINUTE, "max_ttl_us": 60 * MINUTE, "max_depth": 4, "retention_us": 1_440 * MINUTE,
        "workflow_signal": None, "types": {},
    }  # fmt: skip
    assert ApprovalSettings().for_core() == {
        "ttl_us": 15 * MINUTE, "need": 1, "max_open": 20, "actions": {},
    }  # fmt: skip
    assert OverrideSettings().for_core() == {"max_ttl_us": 60 * MINUTE}


def test_what_a_type_leaves_out_is_that_of_all() -> None:
    types = {"invoice_run": {"ttl": "10m", "idle": "2m", "max_depth": 0}, "plain": {}}
    tasks = TaskSettings.model_validate({"ttl": "7m", "max_depth": 3, "types": types})
    assert tasks.for_core()["types"] == {
        "invoice_run": {"ttl_us": 10 * MINUTE, "idle_us": 2 * MINUTE, "max_depth": 0},
        "plain": {"ttl_us": 7 * MINUTE, "idle_us": None, "max_depth": 3},
    }
    approvals = ApprovalSettings.model_validate({"need": 2, "actions": {"transfer.create": {"ttl": "5m"}}})
    assert approvals.for_core()["actions"] == {"transfer.create": {"ttl_us": 5 * MINUTE, "need": 2}}


@pytest.mark.parametrize(
    ("model", "content"),
    [
        (TaskSettings, {"ttl": "999ms"}),
        (TaskSettings, {"max_ttl": "25h"}),
        (TaskSettings, {"retention": "31d"}),
        (TaskSettings, {"max_depth": 33}),
        (TaskSettings, {"max_depth": -1}),
        (TaskSettings, {"workflow_signal": "Not A Name"}),
        (TaskSettings, {"types": {"a": {"idle": "0s"}}}),
        (TaskSettings, {"types": {"No": {}}}),
        (TaskSettings, {"types": {"a": {"tll": "1m"}}}),
        (ApprovalSettings, {"need": 0}),
        (ApprovalSettings, {"need": 11}),
        (ApprovalSettings, {"ttl": "8d"}),
        (ApprovalSettings, {"max_open": 0}),
        (ApprovalSettings, {"actions": {"a": {"need": 0}}}),
        (OverrideSettings, {"max_ttl": "25h"}),
        (OverrideSettings, {"max_ttl": 5}),
    ],
)
def test_what_is_beyond_its_bounds_is_refused(model: Any, content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(content)
