"""Reloads under load through the real check door: no error, no decision from a half-loaded state. Small; the whole
storm is `make bench-reload`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench import reload_storm

RELOADS = 8
POLICIES = 100


def test_reloads_under_load_give_no_error_and_no_decision_from_a_half_loaded_state(tmp_path: Path) -> None:
    figures = reload_storm.run(tmp_path, reloads=RELOADS, policies=POLICIES, calm_s=0.2)
    assert figures.wrong == []
    assert figures.during_reloads > RELOADS
    assert set(figures.by_revision) == {"one", "two"}
    assert sum(figures.by_revision.values()) == figures.answers


class Told:
    """What a caller saw."""

    def __init__(self, *answers: tuple[str, str], failed: int = 0, silent: int = 0) -> None:
        self.seen = Counter(answers)
        self.failed = failed
        self.answered = len(answers) + silent


@pytest.mark.parametrize(
    ("caller", "told", "wrong"),
    [
        ("one", Told(("r1", "policy_denied")), "`policy_denied` by revision r1 (one), expected `allowed`"),
        ("one", Told(("r2", "allowed")), "`allowed` by revision r2 (two), expected `policy_denied`"),
        ("two", Told(("r1", "engine_error")), "`engine_error`"),
        ("two", Told(("r3", "allowed")), "(unknown)"),
        ("two", Told(failed=3), "3 calls of caller two had no answer"),
        ("two", Told(silent=2), "2 answers to caller two named no reason"),
    ],
)
def test_an_answer_that_its_revision_does_not_give_is_found(caller: str, told: Told, wrong: str) -> None:
    good = {"one": Told(("r1", "allowed")), "two": Told(("r2", "allowed"))}
    seen = SimpleNamespace(error=None, witnesses={**good, caller: told})
    figures = reload_storm.Figures(1, 10, 1.0, 2, 2, {}, {}, {}, Counter())
    reload_storm._judge(cast("reload_storm.Load", seen), {"r1": "one", "r2": "two"}, figures)
    assert len(figures.wrong) == 1
    assert wrong in figures.wrong[0]
