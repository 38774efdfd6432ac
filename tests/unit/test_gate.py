"""The gate of instructions: what it reads of callgrind's file, and what it lets pass."""

from __future__ import annotations

import json

import pytest

from bench import gate

PROFILE = """\
events: Ir
fl=(1) main.rs
fn=(1) check_count::main
cfn=(2) check_count::one_check::h0123456789abcdef
calls=3 10
5 900
fn=(2)
10 30
+2 20
cfn=(3) signalwarden_core::engine::Engine::check
calls=3 7
* 850
fn=(3)
7 850
fn=(4) check_count::one_drain::hfedcba9876543210
-1 60
"""
PARTS = {"check": "one_check", "drain": "one_drain"}


def test_a_function_counts_with_what_it_calls_and_not_where_it_is_called() -> None:
    assert gate.counts_of(PROFILE, PARTS, calls=3) == {"check": 300, "drain": 20}


def test_a_function_that_was_never_called_is_said_and_is_no_zero() -> None:
    with pytest.raises(gate.GateError, match="no call of one_other"):
        gate.counts_of(PROFILE, {"other": "one_other"}, calls=1)


@pytest.mark.parametrize(("count", "good"), [(1_030, True), (1_031, False), (500, True)])
def test_what_is_dearer_than_is_borne_fails_and_what_is_cheaper_does_not(count: int, good: bool) -> None:
    lines, passed = gate.compared({"check": count}, {"check": 1_000}, 0.03, 0)
    assert passed is good
    assert ("DEARER" in lines[0]) is not good


def test_a_figure_without_a_baseline_fails() -> None:
    assert gate.compared({"check": 1}, {}, 0.03)[1] is False


def test_the_committed_baseline_has_every_figure() -> None:
    baseline = json.loads(gate.BASELINE.read_text(encoding="utf-8"))["instructions"]
    assert set(baseline) == {f"{part} {' '.join(row)}" for part in gate.PARTS for row in gate.ROWS}
