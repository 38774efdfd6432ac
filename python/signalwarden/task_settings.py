"""What `signalwarden.yaml` may say of tasks, approvals and overrides: how long, how far, and by how many."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from signalwarden.values import Duration, Strict, bad_value, span_s, span_text

__all__ = ["ApprovalSettings", "OverrideSettings", "TaskSettings"]

MICROS = 1_000_000
SHORTEST_S = 1.0
"""Below this a task is over before its first call has arrived."""
LONGEST_TASK_S = span_s("24h")
"""A credential that outlives a day is no task's: legacy jobs are brought in as `coarse` instead."""
LONGEST_QUESTION_S = span_s("7d")
"""A question that nobody has answered in a week is not asked any more."""
LONGEST_OVERRIDE_S = span_s("24h")
"""A feed that is dead for longer is mended, or its contract is changed."""
LONGEST_RETENTION_S = span_s("30d")
"""What ended before is in the decision log."""
MAX_DEPTH = 32
"""The core holds chains of at most 64; nobody oversees one of ten."""
MAX_APPROVERS = 10
"""More than a handful is a committee."""
MAX_OPEN = 1_000
"""Questions of one requester: whoever is asked more often answers none."""
MAX_TYPES = 1_000
"""Types of tasks, or actions with terms of their own."""


def _within(shortest: float, longest: float) -> AfterValidator:
    def check(seconds: float) -> float:
        if not shortest <= seconds <= longest:
            raise bad_value(f"expected a span from {span_text(shortest)} to {span_text(longest)}")
        return seconds

    return AfterValidator(check)


TaskSpan = Annotated[Duration, _within(SHORTEST_S, LONGEST_TASK_S)]
QuestionSpan = Annotated[Duration, _within(SHORTEST_S, LONGEST_QUESTION_S)]
OverrideSpan = Annotated[Duration, _within(SHORTEST_S, LONGEST_OVERRIDE_S)]
RetentionSpan = Annotated[Duration, _within(SHORTEST_S, LONGEST_RETENTION_S)]
Depth = Annotated[int, Field(ge=0, le=MAX_DEPTH)]
Approvers = Annotated[int, Field(ge=1, le=MAX_APPROVERS)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,127}$")]


def _span(default: str, description: str) -> Any:
    return Field(default=span_s(default), description=description, json_schema_extra={"default": default})


def _micros(seconds: float) -> int:
    return round(seconds * MICROS)


class TaskTypeSettings(Strict):
    """Terms of one type of task. What is left out is that of all."""

    ttl: TaskSpan | None = Field(default=None, description="how long a task of this type may take")
    idle: TaskSpan | None = Field(default=None, description="how long it may lie idle")
    max_depth: Depth | None = Field(default=None, description="delegations below one of this type")


class TaskSettings(Strict):
    """How long tasks may take, and how far they may be handed on."""

    ttl: TaskSpan = _span("5m", "how long a task may take whose type has no terms of its own")
    max_ttl: TaskSpan = _span("1h", "how long any task may take, whatever its type says")
    max_depth: Depth = Field(default=4, description="delegations below the first task of a chain")
    retention: RetentionSpan = _span("24h", "how long the reason is remembered why a grant counts no more")
    workflow_signal: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] | None = Field(
        default=None,
        description="signal of subject `workflow` by which orchestrators approve and end workflows",
    )
    types: dict[Name, TaskTypeSettings] = Field(
        default={}, max_length=MAX_TYPES, description="terms by type of task"
    )

    def for_core(self) -> dict[str, Any]:
        """As the core reads them."""
        return {
            "ttl_us": _micros(self.ttl),
            "max_ttl_us": _micros(self.max_ttl),
            "max_depth": self.max_depth,
            "retention_us": _micros(self.retention),
            "workflow_signal": self.workflow_signal,
            "types": {
                name: {
                    "ttl_us": _micros(self.ttl if terms.ttl is None else terms.ttl),
                    "idle_us": None if terms.idle is None else _micros(terms.idle),
                    "max_depth": self.max_depth if terms.max_depth is None else terms.max_depth,
                }
                for name, terms in self.types.items()
            },
        }


class ApprovalActionSettings(Strict):
    """Terms of the approvals of one action. What is left out is that of all."""

    ttl: QuestionSpan | None = Field(default=None, description="how long a question is open")
    need: Approvers | None = Field(default=None, description="how many must say yes")


class ApprovalSettings(Strict):
    """How long questions are open, and how many must say yes."""

    ttl: QuestionSpan = _span("15m", "how long a question is open, and a yes that is not used counts")
    need: Approvers = Field(default=1, description="how many must say yes")
    max_open: Annotated[int, Field(ge=1, le=MAX_OPEN)] = Field(
        default=20, description="open questions of one requester; what comes beyond is not asked"
    )
    actions: dict[Name, ApprovalActionSettings] = Field(
        default={}, max_length=MAX_TYPES, description="terms by action"
    )

    def for_core(self) -> dict[str, Any]:
        """As the core reads them."""
        return {
            "ttl_us": _micros(self.ttl),
            "need": self.need,
            "max_open": self.max_open,
            "actions": {
                name: {
                    "ttl_us": _micros(self.ttl if terms.ttl is None else terms.ttl),
                    "need": self.need if terms.need is None else terms.need,
                }
                for name, terms in self.actions.items()
            },
        }


class OverrideSettings(Strict):
    """How long two people's word may stand in place of a signal."""

    max_ttl: OverrideSpan = _span("1h", "how long an override may last")

    def for_core(self) -> dict[str, Any]:
        """As the core reads them."""
        return {"max_ttl_us": _micros(self.max_ttl)}
