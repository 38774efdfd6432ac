"""Results of the bench: what is read out of a document, how two are compared, what is drawn and written of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import compare, page, plots, results, rounds
from bench.show import show
from bench.stage import BenchError
from tests import measured

ROOT = Path(__file__).resolve().parents[2]


# ---- documents ------------------------------------------------------------------------------------------


def test_a_document_says_where_and_of_what_it_was_taken(tmp_path: Path) -> None:
    made = measured.bench()
    assert set(made["machine"]) == {
        "cpu", "cores", "usable_cores", "kernel", "load_average", "placement", "python"
    }  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", made["commit"])
    assert results.cpu_model("processor\t: 0\nmodel name\t: A CPU: of one sort\n") == "A CPU: of one sort"
    assert results.cpu_model("") == ""
    path = tmp_path / "new" / "one.json"
    results.write(made, path)
    assert results.read(path) == made
    assert [entry.name for entry in path.parent.iterdir()] == ["one.json"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON"),
        ("[]", "its schema is `None`"),
        ('{"schema": "signalwarden-bench/0"}', "its schema is `signalwarden-bench/0`"),
        ('{"schema": "signalwarden-bench/1", "kind": "x"}', "an unknown kind, `x`"),
    ],
)
def test_what_is_no_result_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(BenchError, match=re.escape(sentence)):
        results.read(path)
    with pytest.raises(BenchError, match="can't be read"):
        results.read(tmp_path / "none.json")


def test_figures_are_read_beside_the_floor_and_beside_grpcio_round_by_round() -> None:
    figures = results.figures(measured.bench())
    native = "signalwarden native: "
    assert figures[native + "CPU a check"].median == pytest.approx(18.0)
    assert figures[native + "CPU beside grpcio allow-all"].values == pytest.approx((0.18, 0.18, 0.18))
    assert figures[native + "p99.9 added at half load"].median == pytest.approx(600.0)
    assert figures[native + "through Envoy beside the floor, free"].median == pytest.approx(0.88)
    assert not figures[native + "checks a second"].lower_is_better
    assert "floor (Rust, allow-all): p99.9 added at half load" not in figures
    assert "Envoy RBAC: through Envoy, free" in figures
    assert results.figures(measured.scales())["policies 100,000: CPU a check"].median == 20.0
    assert results.figures(measured.soak())["soak: memory at the end"].median == 61.0


def test_budgets_are_judged_in_their_own_direction() -> None:
    judged = {budget.what: budget for budget in results.budgets(measured.bench(native_us=21.0))}
    assert not judged["signalwarden native: CPU a check"].met
    assert judged["signalwarden native: through Envoy beside the floor, free"].met
    assert judged["signalwarden native: p99.9 added at half load"].met
    assert not judged["signalwarden native: memory idle"].met
    assert judged["signalwarden native: memory of its own idle"].met
    assert not judged["signalwarden grpcio: CPU beside grpcio allow-all"].met


def test_half_load_is_half_of_what_is_kept_up_and_not_of_a_burst() -> None:
    """Records that wait to be written while a burst lasts cost their processor time all the same."""
    burst = [measured.one_round(50.0, rps=40_000.0)]
    assert rounds.capacity(burst, 1) == pytest.approx(20_000.0)
    assert rounds.capacity(burst, 2) == pytest.approx(40_000.0)
    assert rounds.capacity([measured.one_round(20.0, rps=40_000.0)], 1) == pytest.approx(40_000.0)


# ---- two of them ----------------------------------------------------------------------------------------


def _verdicts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    return {each.name: each.verdict for each in compare.compare(before, after)}


def test_the_same_results_differ_by_noise_alone() -> None:
    verdicts = _verdicts(measured.bench(), measured.bench())
    assert set(verdicts.values()) == {"noise", "too few rounds"}
    assert verdicts["signalwarden native: memory idle"] == "too few rounds"


def test_a_change_beyond_the_rounds_is_real_and_has_a_direction() -> None:
    name = "signalwarden native: CPU a check"
    assert _verdicts(measured.bench(18.0), measured.bench(25.0))[name] == "worse"
    assert _verdicts(measured.bench(25.0), measured.bench(18.0))[name] == "better"


def test_a_change_of_less_than_three_in_a_hundred_is_noise_however_steady() -> None:
    name = "signalwarden native: CPU a check"
    before, after = measured.bench(18.0), measured.bench(18.4)
    for made in (before, after):
        (server,) = (each for each in made["servers"] if each["front"] == "native")
        server["closed"] = [server["closed"][1]] * 5
    assert _verdicts(before, after)[name] == "noise"


def test_rounds_that_spread_widely_hide_a_difference() -> None:
    low, high = compare.interval((10.0, 20.0, 30.0), (12.0, 22.0, 33.0))
    assert low < 0 < high


def test_a_comparison_says_first_what_else_differs() -> None:
    before, after = measured.bench(), measured.bench()
    before["machine"] |= {"cpu": "one", "load_average": [0.1, 0.0, 0.0], "cores": 2}
    after["machine"] |= {"cpu": "another", "load_average": [5.0, 0.0, 0.0], "cores": 2}
    after["settings"]["policies"] = 10
    said = list(compare.differences(before, after))
    assert "the machines differ: cpu was one, is another" in said
    assert "the settings differ: policies was 100, is 10" in said
    assert any(sentence.startswith("the second was taken beside other work") for sentence in said)


def test_results_of_two_kinds_are_not_compared(tmp_path: Path) -> None:
    paths = [tmp_path / "bench.json", tmp_path / "soak.json"]
    for path, made in zip(paths, (measured.bench(), measured.soak()), strict=True):
        results.write(made, path)
    command = [sys.executable, str(ROOT / "bench" / "compare.py"), *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == "bench: a result of `bench` is not comparable with one of `soak`\n"


def test_two_files_are_compared_from_the_command_line(tmp_path: Path) -> None:
    for name, made in (("a", measured.bench(18.0)), ("b", measured.bench(25.0))):
        results.write(made, tmp_path / f"{name}.json")
    command = [
        sys.executable,
        str(ROOT / "bench" / "compare.py"),
        *(str(tmp_path / f"{n}.json") for n in "ab"),
    ]
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    compared = {each["name"]: each for each in json.loads(ended.stdout)}
    assert compared["signalwarden native: CPU a check"]["verdict"] == "worse"
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "worse" in shown.stdout


# ---- drawn and written ----------------------------------------------------------------------------------


def test_every_figure_is_drawn_and_the_page_needs_nothing_else(tmp_path: Path) -> None:
    written = plots.draw([measured.bench(), measured.scales(), measured.soak()], tmp_path)
    names = {path.name for path in written}
    assert names >= {
        "cpu-per-check.svg", "cpu-per-check.png", "latency-percentiles.svg", "through-envoy-free.svg",
        "scale-policies.png", "soak-memory.svg", "report.html",
    }  # fmt: skip
    whole = (tmp_path / "report.html").read_text()
    assert whole.count("<svg") == 5
    assert "opa-sdk: there is no Go" in whole
    assert not re.search(r'(?:src|href)="(?!#)', whole.replace("xlink:", ""))
    ids = re.findall(r'\bid="([^"]+)"', whole)
    assert len(ids) == len(set(ids))
    assert (tmp_path / "cpu-per-check.png").read_bytes().startswith(b"\x89PNG")


def test_a_text_of_the_results_is_no_markup_of_the_page(tmp_path: Path) -> None:
    made = measured.bench()
    made["wrong"] = ["<script>alert(1)</script>"]
    made["servers"][0]["name"] = "<b>floor</b>"
    plots.draw([made], tmp_path)
    whole = (tmp_path / "report.html").read_text()
    assert "<script" not in whole
    assert "<b>floor" not in whole


def test_the_page_is_filled_between_its_marks_and_nowhere_else() -> None:
    whole = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    section = page.text([measured.bench(), measured.scales(), measured.soak()])
    filled = page.filled(whole, section)
    assert filled.startswith(f"before\n{page.BEGIN}\n")
    assert filled.endswith(f"\n{page.END}\nafter\n")
    assert "old" not in filled
    assert page.filled(filled, section) == filled
    assert "| signalwarden native | 18.0 (17.8 to 18.2) |" in filled
    assert "**not met**" in filled
    assert "| 100,000 | 20.0 | 1.11 |" in filled
    with pytest.raises(BenchError, match="has no section"):
        page.filled("nothing", section)


def test_the_page_on_performance_has_the_section_that_is_filled() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    page.filled(text, "measured")


def test_a_document_is_shown_with_what_was_left_out_and_what_was_not_met(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(measured.bench(native_us=21.0))
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out: opa-sdk: there is no Go toolchain" in shown
    assert "NOT met" in shown
    assert "locust's own ceiling" in shown
