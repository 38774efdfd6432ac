"""The evidence report: how a control stands, what it names, and how it is written. And its verb, with bad input."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import stat
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from signalwarden import cli
from signalwarden.audit import ground as ground_room
from signalwarden.audit import rendering
from signalwarden.audit.controls import Role, frameworks, invariants
from signalwarden.audit.gathered import Gathered
from signalwarden.audit.querying import QUERIES
from signalwarden.audit.report import Standing, build
from signalwarden.log_reading.records import Faults
from tests.auditing import AGENT, FULL, Log, ground_of, written
from tests.pages import ROOT, rows, section, table, text_of
from tests.recorded import MIX, Recorded

STANDINGS = {standing.value for standing in Standing}


def document(root: Path, gathered: Gathered, files: dict[str, str] = FULL) -> dict[str, Any]:
    known = list(frameworks().values())
    return build(
        ground_of(root, files), gathered, Faults(), known, since=None, until=None, files=["decisions.jsonl"]
    )


def controls(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {control["id"]: control for framework in told["frameworks"] for control in framework["controls"]}


# ---- the table ------------------------------------------------------------------------------------------


def every_control() -> list[Any]:
    return [control for framework in frameworks().values() for control in framework.controls]


def test_every_control_names_queries_weaknesses_promises_and_tests_that_there_are() -> None:
    tags = set(re.findall(r'Weakness\(\s*"(\w+)"', Path(ground_room.__file__).read_text())) | {
        "client_long_lived", "check",
    }  # fmt: skip
    sources = "\n".join(
        path.read_text()
        for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "rust_core/core").rglob("*.rs")]
        if "target" not in path.parts
    )
    asked = set()
    for control in every_control():
        assert set(control.queries) <= set(QUERIES), control.id
        assert set(control.weakened_by) <= tags, control.id
        assert set(control.invariants) <= set(invariants()), control.id
        assert [name for name in control.tests if not re.search(rf"\b(?:fn|def) {name}\b", sources)] == []
        assert bool(control.queries) == (control.role is not Role.NONE), control.id
        asked |= set(control.queries)
    assert asked == set(QUERIES), "no query is asked for nothing"


def test_ids_are_those_of_the_standards() -> None:
    ids = {name: [control.id for control in framework.controls] for name, framework in frameworks().items()}
    assert ids["owasp-nhi"] == [f"NHI{number}:2025" for number in range(1, 11)]
    assert all(re.fullmatch(r"(GOVERN|MAP|MEASURE|MANAGE) \d\.\d", name) for name in ids["nist-ai-rmf"])
    assert all(re.match(r"L[1-7]|Cross-layer ", name) for name in ids["maestro"])
    assert len(ids["nist-ai-rmf"]) == 14


def test_the_page_of_controls_is_that_of_the_table() -> None:
    page = text_of("docs/controls.md")
    shown = {row[0].strip("`"): row[1:] for row in rows(page) if len(row) == 4 and row[0].startswith("`")}
    expected = {}
    for control in every_control():
        also = f" ({'; '.join(control.neighbours)})" if control.neighbours else ""
        role = control.role.value + (", in part" if control.part else "")
        expected[control.id] = [control.title + also, role, control.control]
    assert shown == expected
    standings = {name: cells[0] for name, cells in table(section(page, "## How a control stands")).items()}
    assert set(standings) == STANDINGS == set(rendering.WORDS)


# ---- standings ------------------------------------------------------------------------------------------


def test_without_records_nothing_is_enforced_and_nothing_is_passed(tmp_path: Path) -> None:
    told = document(tmp_path, Gathered())
    found = {name: control["standing"] for name, control in controls(told).items()}
    assert set(found.values()) <= STANDINGS
    assert "enforced" not in found.values()
    assert found["NHI5:2025"] == found["MEASURE 2.6"] == found["L7 Repudiation"] == "no data"
    assert found["L1"] == found["L3"] == "not covered"
    for text in (rendering.markdown(told), rendering.html(told), json.dumps(told)):
        assert not re.search(r"\b(passed|compliant|satisfied)\b", text, re.IGNORECASE)


def test_with_records_what_is_done_here_is_enforced_or_evidenced(tmp_path: Path) -> None:
    told = controls(document(tmp_path, Log().decision(count=3).decision("policy_denied").gathered()))
    assert told["NHI5:2025"]["standing"] == "enforced"
    assert told["NHI2:2025"]["standing"] == "evidenced"
    assert told["L1"]["standing"] == "not covered"
    assert told["L1"]["why"] == "nothing here implements it"
    assert told["NHI9:2025"]["standing"] == "no data", "no certificate was forwarded"


def test_what_a_directory_does_not_switch_on_is_not_covered(tmp_path: Path) -> None:
    files = {**FULL, "routes.yaml": FULL["routes.yaml"].replace("    environment: prod\n", "")}
    told = controls(document(tmp_path, Log().decision().gathered(), files))["NHI8:2025"]
    assert (told["standing"], told["why"]) == (
        "not covered",
        "no route names an environment, so there is none to keep apart",
    )


def test_where_no_route_is_enforced_nothing_is(tmp_path: Path) -> None:
    text = re.sub(
        r"(    sensitivity: \w+\n)(?!    enforce| {4}env)", r"\1    enforce: false\n", FULL["routes.yaml"]
    )
    text = text.replace("    environment: prod\n", "    environment: prod\n    enforce: false\n")
    log = Log().decision().decision("policy_denied", enforced=False)
    told = controls(document(tmp_path, log.gathered(), {**FULL, "routes.yaml": text}))
    assert told["NHI5:2025"]["standing"] == "not covered"
    assert "let pass" in told["NHI5:2025"]["why"]
    assert told["NHI4:2025"]["standing"] == "enforced", "identities are refused all the same"


UNGOVERNED = {
    **FULL,
    "signalwarden.yaml": FULL["signalwarden.yaml"]
    + "policies:\n  rego:\n    input: opa_envoy\n    ungoverned: true\n",
    "policies/all.rego": 'package authz\n\nallow if input.attributes.request.http.method == "GET"\n',
}


def test_what_rests_on_a_suspended_promise_is_not_enforced_and_says_why(tmp_path: Path) -> None:
    log = Log().decision(count=3).decision("policy_denied")
    governed = controls(document(tmp_path / "a", log.gathered()))
    found = document(tmp_path / "b", log.gathered(), UNGOVERNED)
    told = controls(found)
    text = "policies in Rego see whole requests (`ungoverned: true`): I1, I2, I3 are suspended for what they decide"
    finding = {"kind": "ungoverned", "what": text, "at": "signalwarden.yaml:12"}
    assert finding in found["findings"], "it is said above all"
    assert not any("ungoverned" in one["kind"] for one in document(tmp_path / "c", Gathered())["findings"])
    for control in every_control():
        rests = {"I1", "I2", "I3"} & set(control.invariants)
        shown = told[control.id]
        assert rests.isdisjoint(entry["at"] for entry in shown["by"]), control.id
        if rests:
            assert finding in shown["findings"], control.id
            assert shown["standing"] != "enforced", control.id
        elif control.role is Role.ENFORCES:
            assert shown["standing"] == governed[control.id]["standing"], control.id
    assert governed["L6 the decision point as a target"]["standing"] != "not covered"
    assert (told["NHI5:2025"]["standing"], governed["NHI5:2025"]["standing"]) == ("not covered", "enforced")
    assert told["NHI5:2025"]["why"] == "`ungoverned: true` suspends I1, on which it rests"
    assert told["MEASURE 2.6"]["why"] == "`ungoverned: true` suspends I2, on which it rests"
    for written_as in (rendering.markdown(found), rendering.html(found)):
        assert "suspended for what they decide" in written_as


def test_where_nobody_but_such_policies_is_asked_no_identity_is_needed_and_it_is_said(tmp_path: Path) -> None:
    alone = {name: text for name, text in UNGOVERNED.items() if not name.endswith(".cedar")}
    alone["signals.yaml"] = "signals: {}\n"
    told = controls(document(tmp_path, Log().decision().gathered(), alone))["NHI4:2025"]
    (finding,) = (one for one in told["findings"] if one["kind"] == "ungoverned")
    assert finding["what"].endswith("; a `coarse` route asks for no identity")


def test_half_of_a_control_says_which_half(tmp_path: Path) -> None:
    files = {
        **FULL,
        "routes.yaml": FULL["routes.yaml"].replace(", mcp: {method: tools/call, tool: read_note}", ""),
    }
    log = Log().change("approval_asked", actor=AGENT)
    told = controls(document(tmp_path, log.gathered(), files))["L7 Agent Tool Misuse"]
    assert told["standing"] == "enforced"
    assert "in part alone: no route matches a tool of MCP" in [
        finding["what"] for finding in told["findings"]
    ]


def test_a_control_says_by_what_with_file_and_line_promise_and_test(tmp_path: Path) -> None:
    told = controls(document(tmp_path, Log().decision().gathered()))["NHI5:2025"]
    by = {(entry["kind"], entry["at"]) for entry in told["by"]}
    assert {("directory", "policies/pages.cedar:8"), ("invariant", "I1"), ("test", "tests")} <= by
    found = {(finding["kind"], finding["at"]) for finding in told["findings"]}
    assert {("unenforced", "routes.yaml:21"), ("absent", "signals.yaml:2")} <= found


def test_another_revision_and_lost_records_are_said_of_every_figure(tmp_path: Path) -> None:
    log = (
        Log()
        .decision(policies={"revision": "ab" * 32})
        .decision(policies={"revision": "cd" * 32}, refused_before=3)
    )
    said = " ".join(finding["what"] for finding in document(tmp_path, log.gathered())["findings"])
    assert "the last record was decided by cdcdcdcdcdcd" in said
    assert "2 revisions decided" in said
    assert "3 calls were answered `log_unavailable`" in said


# ---- how it is written ----------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page is made of."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


HOSTILE = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)>\x1b[2J|`'


def test_the_page_loads_nothing_runs_nothing_and_is_well_formed(tmp_path: Path) -> None:
    log = Log().decision(principal={"id": HOSTILE}).decision(HOSTILE, request={"action": HOSTILE})
    log.change("configuration_loaded", actor=HOSTILE, revision="r", words=[])
    text = rendering.html(document(tmp_path, log.gathered()))
    page = Page()
    page.feed(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")} | ({"src", "href"} & names)
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "\x1b" not in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


def test_a_table_of_markdown_holds_whatever_stands_in_a_record(tmp_path: Path) -> None:
    log = Log().decision(principal={"id": HOSTILE}).decision("a|b\n| c", request={"action": HOSTILE})
    text = rendering.markdown(document(tmp_path, log.gathered()))
    assert "<script" not in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for before, after in itertools.pairwise(rows):
        if set(after) <= set("|-"):
            assert before.count("|") - before.count("\\|") == after.count("|")
    assert any("a\\|b" in row for row in rows)


# ---- the verb -------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    made = Recorded.starter(tmp_path / "refunds")
    for known in MIX:
        made.decide(known)
    return made.write()


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    status = cli._run(["report", *arguments])
    out, err = capfd.readouterr()
    return status, out, err


def told(capfd: pytest.CaptureFixture[str], recorded: Recorded, *more: str) -> dict[str, Any]:
    status, out, err = run(capfd, "--config", str(recorded.directory), "--json", *more)
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_each_form_is_written_and_one_framework_or_all(
    recorded: Recorded, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capfd, "--config", str(recorded.directory))
    assert (status, err) == (0, "")
    assert out.startswith("# Evidence report\n")
    assert out.count("\n## ") == 3
    status, out, _ = run(
        capfd, "--config", str(recorded.directory), "--format", "html", "--framework", "maestro"
    )
    assert out.startswith("<!doctype html>")
    assert out.count("<h2>") == 1
    assert len(told(capfd, recorded)["frameworks"]) == 3
    assert [f["id"] for f in told(capfd, recorded, "--framework", "owasp-nhi")["frameworks"]] == ["owasp-nhi"]


def test_a_report_is_written_for_its_user_alone(
    recorded: Recorded, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    out.write_text("an older one")
    status, said, err = run(capfd, "--config", str(recorded.directory), "--format", "html", "--out", str(out))
    assert (status, said, err) == (0, "", "")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_rotated_and_compressed_files_count_and_since_leaves_out(
    recorded: Recorded, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded.rotate(1, compressed=True)
    recorded.decide(MIX[2])
    recorded.write()
    recorded.rotate(2)
    recorded.decide(MIX[2])
    recorded.write()
    found = told(capfd, recorded)
    assert (found["log"]["decisions"], len(found["log"]["files"])) == (7, 3)
    last = json.loads(recorded.log.read_bytes().splitlines()[-1])["time"]
    found = told(capfd, recorded, "--since", last)
    assert (found["log"]["decisions"], found["period"]["since"]) == (1, last)
    found = told(capfd, recorded, "--until", last)
    assert found["log"]["decisions"] == 6


def test_damaged_lines_are_named_counted_and_left_out(
    recorded: Recorded, capfd: pytest.CaptureFixture[str]
) -> None:
    with recorded.log.open("ab") as log:
        log.write(b"\xff\xfe no JSON\n{}\n" + b'{"v":9,"kind":"decision"}\n' + b'{"v":1,"kind":"dec')
    status, out, err = run(capfd, "--config", str(recorded.directory), "--json")
    assert status == 0
    found = json.loads(out)
    assert found["log"]["decisions"] == len(MIX)
    assert found["log"]["skipped"]["count"] == 4
    assert f"{recorded.log}:6" in err
    assert len([line for line in err.splitlines() if line.startswith("signalwarden: skipped")]) == 4
    assert any("skipped" in finding["what"] for finding in found["findings"])


def test_a_log_that_is_not_there_yet_is_no_data(
    recorded: Recorded, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded.log.unlink()
    found = told(capfd, recorded)
    assert found["log"]["records"] == 0
    assert "enforced" not in {control["standing"] for control in controls(found).values()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--framework", "owasp"), "owasp-nhi"),
        (("--format", "pdf"), "markdown"),
        (("--json", "--format", "html"), "contradict each other"),
        (("--since", "yesterday"), "--since `yesterday` is neither a span"),
        (("--log", "nowhere.jsonl"), "no such file"),
        (("--out", "nowhere/report.md"), "`nowhere/report.md` can't be written"),
        (("--config", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(
    recorded: Recorded, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(recorded.directory)
    status, out, err = run(capfd, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2


def test_a_foreign_file_is_no_log(
    recorded: Recorded, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("notes.txt", b"dear diary\n"), ("notes.gz", gzip.compress(b"dear diary\n"))):
        foreign = tmp_path / name
        foreign.write_bytes(content)
        status, out, err = run(capfd, "--config", str(recorded.directory), "--log", str(foreign))
        assert (status, out) == (2, "")
        assert "is no decision log" in err


def test_a_directory_with_a_mistake_is_not_reported_on(
    recorded: Recorded, capfd: pytest.CaptureFixture[str]
) -> None:
    written(recorded.directory, {"routes.yaml": "routes: 7\n"})
    status, out, err = run(capfd, "--config", str(recorded.directory))
    assert (status, out) == (2, "")
    assert "routes.yaml:1" in err


def test_the_state_of_a_running_server_is_read_and_one_of_another_program_is_said(
    recorded: Recorded, capfd: pytest.CaptureFixture[str]
) -> None:
    state = recorded.directory / "var" / "state.db"
    state.write_bytes(b"no database, but as long as a header of one would be" * 4)
    found = told(capfd, recorded)
    assert any("the state" in finding["what"] for finding in found["findings"])
