"""The pages of `log replay`, `log simulate` and `log brittleness`: what they found, with plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from signalwarden.log_reading.brittleness import Brittleness, Scenario
from signalwarden.log_reading.flips import Flips
from signalwarden.log_reading.page import Page, bars, grid
from signalwarden.log_reading.replaying import Tally

__all__ = ["brittleness_page", "flips_page"]

MAX_ROWS: Final = 25
MAX_COLUMNS: Final = 8


def flips_page(flips: Flips, title: str, *told: str) -> str:
    """Groups by policy and signal, who is concerned, and the flips themselves."""
    decided = flips.tally.decided
    page = Page(title, *told)
    widens, narrows = flips.by_direction["widens"], flips.by_direction["narrows"]
    page.section(
        "Outcome",
        f"{decided:,} decisions were made again. {flips.count:,} end otherwise: {widens:,} denials would be allowed, "
        f"{narrows:,} allows would be denied.",
    )
    rows = [("denied, would be allowed", decided, widens), ("allowed, would be denied", decided, narrows)]
    page.plot(bars("flips among the decisions that were made again", rows))
    groups = flips.sorted_groups()
    if groups:
        page.section("By policy and signal", "A flip of several policies or signals is in the group of each.")
        page.plot(
            bars(
                "flips by policy and signal",
                [(f"{g.policy} · {g.signal}", flips.count, g.count) for g in groups[:MAX_ROWS]],
            )
        )
        page.table(
            ("direction", "policy", "signal", "flips", "then → now", "first decisions"),
            [
                (g.direction, g.policy, g.signal, g.count, _counted(g.reasons), ", ".join(g.examples))
                for g in groups
            ],
        )
        callers: Counter[tuple[str, str, str]] = Counter()
        for flip in flips.kept:
            said = flip.as_dict()
            callers[flip.direction, str(said["principal"] or "-"), str(said["action"] or "-")] += 1
        page.section("By principal and action")
        page.table(
            ("direction", "principal", "action", "flips"), [(*key, n) for key, n in callers.most_common(200)]
        )
    if flips.otherwise:
        page.section("Same outcome, another reason")
        page.table(("was", "is", "decisions"), [(*key, n) for key, n in flips.otherwise.most_common()])
    _left_out(page, flips.tally)
    if flips.kept:
        shown = f"The first {len(flips.kept):,} of {flips.count:,}." if len(flips.kept) < flips.count else ""
        page.section("Every flip", *([shown] if shown else []))
        page.table(
            ("time", "decision", "was", "is", "principal", "action", "resource", "policies"),
            (
                (said["time"], said["decision_id"], flip.was.reason, flip.now.reason, said["principal"] or "-",
                 said["action"] or "-", said["resource"] or "-", ", ".join(flip.policies))
                for flip in flips.kept
                for said in (flip.as_dict(),)
            ),
        )  # fmt: skip
    return page.html()


def brittleness_page(found: Brittleness, title: str, *told: str) -> str:
    """What hangs on each signal, by principal and action; what never decided anything."""
    page = Page(title, *told)
    page.section(
        "If a signal were lost",
        f"{found.tally.decided:,} decisions were made again, {found.allowed:,} of them allow. "
        "Red: allows that the loss would deny. Grey: all allows that read it.",
    )
    page.plot(
        bars(
            "allows that hang on a signal",
            [(loss.scenario.name, loss.allowed, loss.denied) for loss in found.losses[:MAX_ROWS]],
        )
    )
    page.table(
        ("lost", "what", "decisions that read it", "allows", "would be denied", "would be allowed", "reason then"),
        [
            (loss.scenario.name, _what(loss.scenario), loss.read, loss.allowed, loss.denied, loss.opened,
             _counted(loss.reasons))
            for loss in found.losses
        ],
    )  # fmt: skip
    for loss in found.losses:
        if loss.denied:
            page.section(
                f"Without {loss.scenario.name}",
                f"{loss.denied:,} of {loss.allowed:,} allows would be denied.",
            )
            page.plot(_grid(loss.scenario.name, loss.callers, loss.allowed_of))
    page.section("Signals that never decided anything", *_minimal(found))
    _left_out(page, found.tally)
    return page.html()


def _what(scenario: Scenario) -> str:
    return "signal" if scenario.kind == "signal" else f"brings {', '.join(scenario.signals)}"


def _grid(name: str, denied: Counter[tuple[str, str]], allowed: Counter[tuple[str, str]]) -> str:
    principals = Counter[str]()
    actions = Counter[str]()
    for (principal, action), count in denied.items():
        principals[principal] += count
        actions[action] += count
    return grid(
        f"allows that hang on {name}, by principal and action",
        [principal for principal, _ in principals.most_common(MAX_ROWS)],
        [action for action, _ in actions.most_common(MAX_COLUMNS)],
        {pair: (denied[pair], count) for pair, count in allowed.items()},
    )


def _minimal(found: Brittleness) -> Iterator[str]:
    if found.never_decisive:
        names = ", ".join(found.never_decisive)
        yield f"Read, and never decisive in this period: {names}. Could the policies do without?"
    if found.unread:
        yield f"Never read: {', '.join(found.unread)}."
    if found.steady:
        yield f"Said by the directory itself, so they can't fail: {', '.join(found.steady)}."
    if not (found.never_decisive or found.unread):
        yield "None: each signal of the register decided something."


def _left_out(page: Page, tally: Tally) -> None:
    kinds = (("undecidable", tally.undecidable), ("of another kind", tally.skipped), ("no record", tally.bad))
    rows = [(what, why, number) for what, counts in kinds for why, number in counts.most_common()]
    if rows:
        page.section("Not made again")
        page.table(("what", "why", "records"), rows)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{word} ({count:,})" for word, count in counts.most_common())
