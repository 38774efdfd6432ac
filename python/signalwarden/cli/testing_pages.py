"""How `test` shows what came of its cases: for people a line for each file and what failed, for programs JSON."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from signalwarden.cli import stories
from signalwarden.decision_log.tail import clean
from signalwarden.saying import count

if TYPE_CHECKING:
    from rich.console import Console

    from signalwarden.config import Directory, Loaded
    from signalwarden.log_reading.beside import Beside
    from signalwarden.log_reading.story import Story
    from signalwarden.policy_tests.coverage import Coverage
    from signalwarden.policy_tests.running import Result, Results

__all__ = ["Pages"]

MAX_TOLD: Final = 20
"""Failures that are told in full; a mistake in a policy fails hundreds, and the first tell it."""
STYLES: Final = {"passed": "green", "failed": "bold red", "error": "bold red"}
APPLIES: Final = {
    "certain": ("applies", "green"),
    "may": ("may apply", "yellow"),
    "never": ("does not apply", ""),
    "failed": ("failed", "red"),
}


class Pages:
    """What there is to show of a run."""

    def __init__(
        self, directory: Directory, loaded: Loaded, results: Results, coverage: Coverage | None
    ) -> None:
        """`loaded` is `directory`, judged: failures are told with the texts that were."""
        self._directory = directory
        self._loaded = loaded
        self._results = results
        self._coverage = coverage
        self._found: Beside | None = None

    # ------------------------------------------------------------ for programs

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        results = self._results
        told: dict[str, Any] = {
            "revision": self._loaded.configuration.revision,
            "passed": results.count("passed"),
            "failed": results.count("failed"),
            "errors": results.count("error"),
            "left_out": results.left_out,
            "seconds": round(results.seconds, 3),
            "cases": [self._case(result) for result in results.all],
        }
        if self._coverage is not None:
            told["coverage"] = self._coverage.as_dict()
        return told

    def _case(self, result: Result) -> dict[str, Any]:
        case = result.case
        told: dict[str, Any] = {
            "file": case.place.file,
            "line": case.place.line,
            "name": case.name,
            "status": result.status,
            "seconds": round(result.seconds, 6),
        }
        if result.error is not None:
            told["error"] = result.error
        if result.mismatches:
            told["mismatches"] = [one.as_dict() for one in result.mismatches]
        if result.played is not None:
            told["policies"] = [*(result.played.reach or ())]
            told["refused"] = result.played.refused
            told["explanation"] = self._story(result).as_dict()
        return told

    # ------------------------------------------------------------ for people

    def show(self, out: Console, *, verbose: bool) -> None:
        """Files, failures, coverage, and the sum."""
        results = self._results
        for file, group in groupby(results.all, key=lambda result: result.case.place.file):
            self._show_file(out, file, [*group], verbose=verbose)
        for result in results.bad[:MAX_TOLD]:
            out.print()
            self._show_failure(out, result)
        if len(results.bad) > MAX_TOLD:
            out.print(
                f"\nand {len(results.bad) - MAX_TOLD} more that are not as expected: `--json` tells all"
            )
        if self._coverage is not None:
            out.print()
            _show_coverage(out, self._coverage)
        out.print()
        out.print(self._sum())

    def _sum(self) -> Text:
        results = self._results
        words = [f"{results.count('passed')} passed"]
        if failed := results.count("failed"):
            words.append(f"{failed} failed")
        if errors := results.count("error"):
            words.append(f"{count(errors, 'case')} could not be played")
        if results.left_out:
            words.append(f"{results.left_out} not run")
        style = "bold red" if results.bad else "bold green"
        return Text.assemble((", ".join(words), style), f" in {results.seconds:.2f} s")

    def _show_file(self, out: Console, file: str, results: list[Result], *, verbose: bool) -> None:
        good = sum(result.is_good for result in results)
        style = STYLES["passed"] if good == len(results) else STYLES["failed"]
        out.print(Text.assemble(clean(file), "  ", (f"{good} of {len(results)} passed", style)))
        for result in results if verbose else ():
            word = {"passed": "ok", "failed": "FAILED", "error": "ERROR"}[result.status]
            out.print(
                Text.assemble("  ", (f"{word:<6}", STYLES[result.status]), "  ", clean(result.case.name))
            )

    def _show_failure(self, out: Console, result: Result) -> None:
        case = result.case
        head = "ERROR" if result.error is not None else "FAILED"
        out.print(
            Text.assemble((head, "bold red"), f"  {clean(str(case.place))}  ", (clean(case.name), "bold"))
        )
        if result.error is not None:
            out.print(Text(f"  {clean(result.error)}"))
            return
        width = max(len(one.what) for one in result.mismatches)
        for one in result.mismatches:
            out.print(
                Text.assemble(
                    "  ",
                    (f"{clean(one.what):<{width}}", "bold blue"),
                    ("  - ", "green"),
                    (clean(one.expected), "green"),
                )
            )
            out.print(Text.assemble("  ", " " * width, ("  + ", "red"), (clean(one.actual), "red")))
        self._show_policies(out, result)
        out.print()
        stories.show(out, self._story(result))

    def _show_policies(self, out: Console, result: Result) -> None:
        """Every policy in play, and how sure it is that it applies: the record names only those that decided."""
        played = result.played
        if played is None:
            return
        for name, why in played.refused.items():
            out.print(Text(f"  the signal `{clean(name)}` was not taken in: {clean(why)}", "yellow"))
        if not played.reach:
            return
        known = {policy["id"]: policy for policy in self._beside().described.get("policies", [])}
        out.print(Text("  policies in play", "bold blue"))
        for one in played.reach:
            policy = known.get(one["id"], {})
            words, style = APPLIES.get(one["truths"][-1], ("?", ""))
            place = f"{policy.get('file')}:{policy.get('line')}"
            out.print(
                Text.assemble(
                    "    ",
                    clean(f"{policy.get('effect')} {one['id']}"),
                    "  ",
                    (words, style),
                    f"  {clean(place)}",
                )
            )

    def _story(self, result: Result) -> Story:
        """As `log explain` tells it."""
        from signalwarden.log_reading import explaining, story

        played = result.played
        if played is None:
            raise AssertionError("only what was played has a story")
        told = explaining.explained(played.line, played.record, self._beside())
        if not isinstance(told, story.Story):
            raise AssertionError("the record of a case is that of a decision")
        return told

    def _beside(self) -> Beside:
        from signalwarden.log_reading.beside import Beside

        if self._found is None:
            self._found = Beside(self._loaded, self._directory.files, self._directory.root)
        return self._found


def _show_coverage(out: Console, coverage: Coverage) -> None:
    for name, reached, of, percent in coverage.sums():
        style = "green" if reached == of else "yellow"
        out.print(Text.assemble(f"{name:<12}", (f"{percent:5.1f} %", style), f"  {reached} of {of} ways"))
    routes = coverage.routes
    out.print(f"{'routes':<12}{sum(map(bool, routes.values()))} of {len(routes)} asked")
    reasons = ", ".join(f"{reason} {times}" for reason, times in sorted(coverage.reasons.items()))
    out.print(f"{'reasons':<12}{reasons or 'none'}")
    for gap in coverage.gaps():
        out.print(
            Text.assemble(
                (f"{clean(gap.file)}:{gap.line}: ", "bold"), ("not covered: ", "yellow"), clean(gap.what)
            )
        )
    for route, times in routes.items():
        if not times:
            out.print(
                Text.assemble(
                    (f"{clean(route)}: ", "bold"),
                    ("not asked: ", "yellow"),
                    "no case has a request of this route",
                )
            )
    out.print(
        Text.assemble(
            ("covered ", "bold"),
            (f"{coverage.percent:.1f} %", "bold green" if coverage.percent >= 100 else "bold yellow"),
        )
    )
