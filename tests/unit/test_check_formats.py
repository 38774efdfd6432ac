"""`signalwarden check` for programs: what each format says, and that every code that there is has its line of help."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from signalwarden import config, findings, reports, starter
from signalwarden.errors import ConfigurationError, Problem
from tests.commanding import Commands

ROOT: Final = Path(__file__).parents[2]
SCHEMA: Final = json.loads((Path(__file__).parent / "sarif-2.1.0-essential.schema.json").read_text())
NOW_US: Final = 1_795_514_400_000_000


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capfd)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The starter in a folder of a repository, with an error, a warning and a declared exception."""
    (tmp_path / ".git").mkdir()
    made = starter.create(tmp_path / "deploy" / "re funds", now=datetime.now(UTC)).directory
    edit(made / "routes.yaml", "tier: coarse", "tier: course")
    (made / "signals.yml").write_text("")
    return made


@pytest.fixture
def excepted(tmp_path: Path) -> Path:
    """A good directory with a declared exception."""
    made = starter.create(tmp_path / "refunds", now=datetime.now(UTC)).directory
    exception = (
        'when_unavailable: absent\n    justification: "100% agreed: go on, until\\u2028the feed is back"'
    )
    edit(made / "signals.yaml", "when_unavailable: deny", exception)
    return made


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def valid(text: str) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(text)
    errors = [f"{e.json_path}: {e.message}" for e in Draft202012Validator(SCHEMA).iter_errors(log)]
    assert errors == []
    return log


def test_the_schema_of_sarif_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_sarif_has_a_result_for_each_finding_at_its_place_in_the_repository(
    run: Commands, directory: Path
) -> None:
    status, out, err = run("check", "--config", directory, "--format", "sarif")
    assert (status, err) == (1, "")
    (one,) = valid(out)["runs"]
    told = json.loads(run("check", "--config", directory, "--json")[1])
    assert len(one["results"]) == len(told["findings"]) > 1
    rules = one["tool"]["driver"]["rules"]
    for result, finding in zip(one["results"], told["findings"], strict=True):
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == f"deploy/re%20funds/{finding['file']}"
        assert place["region"]["startLine"] == max(finding["line"], 1)
        assert place["region"]["startColumn"] == max(finding["column"], 1)
        assert (result["level"], result["message"]["text"]) == (finding["severity"], finding["message"])
        rule = rules[result["ruleIndex"]]
        assert rule["id"] == result["ruleId"] == finding["code"]
        assert rule["help"]["text"] == findings.HELP[finding["code"]]
    assert {result["level"] for result in one["results"]} == {"error", "warning"}


def test_a_finding_is_known_again_when_lines_move(run: Commands, directory: Path) -> None:
    def prints() -> list[str]:
        log = valid(run("check", "--config", directory, "--format", "sarif")[1])
        return [r["partialFingerprints"]["signalwarden/v1"] for r in log["runs"][0]["results"]]

    before = prints()
    routes = directory / "routes.yaml"
    routes.write_text("# a line\n" + routes.read_text())
    assert prints() == before


def test_outside_of_a_repository_places_are_relative_to_the_directory(run: Commands, tmp_path: Path) -> None:
    made = starter.create(tmp_path / "refunds", now=datetime.now(UTC)).directory
    edit(made / "routes.yaml", "tier: coarse", "tier: course")
    log = valid(run("check", "--config", made, "--format", "sarif")[1])
    uris = {
        place["physicalLocation"]["artifactLocation"]["uri"]
        for result in log["runs"][0]["results"]
        for place in result["locations"]
    }
    assert uris == {"routes.yaml"}


def test_declared_exceptions_are_listed_in_every_format(run: Commands, excepted: Path) -> None:
    line = excepted.joinpath("signals.yaml").read_text().split("when_unavailable")[0].count("\n") + 1
    status, text, _ = run("check", "--config", excepted)
    assert status == 0
    assert "declared exception: signals.yaml:" in text
    assert text.count("\n") == 2
    assert len(json.loads(run("check", "--config", excepted, "--format", "json")[1])["exceptions"]) == 1
    status, text, _ = run("check", "--config", excepted, "--format", "sarif")
    (result,) = valid(text)["runs"][0]["results"]
    assert (status, result["level"], result["ruleId"]) == (0, "note", "declared_exception")
    assert 1 < result["locations"][0]["physicalLocation"]["region"]["startLine"] <= line
    status, text, _ = run("check", "--config", excepted, "--format", "github")
    assert status == 0
    assert re.fullmatch(
        r"::notice file=signals\.yaml,line=\d+,col=1,title=declared_exception::`device_trust` counts as absent .*"
        r"100%25 agreed: go on, until\\u2028the feed is back\n",
        text,
    )


def test_a_good_directory_has_no_results_and_no_commands(run: Commands, tmp_path: Path) -> None:
    made = starter.create(tmp_path / "refunds", now=datetime.now(UTC)).directory
    status, out, _ = run("check", "--config", made, "--format", "sarif")
    one = valid(out)["runs"][0]
    assert (status, one["results"], one["tool"]["driver"]["rules"]) == (0, [], [])
    assert run("check", "--config", made, "--format", "github") == (0, "", "")


def test_github_has_a_command_for_each_finding(run: Commands, directory: Path) -> None:
    status, out, _ = run("check", "--config", directory, "--format", "github")
    told = json.loads(run("check", "--config", directory, "--json")[1])["findings"]
    lines = out.splitlines()
    assert status == 1
    assert len(lines) == len(told)
    for line, finding in zip(lines, told, strict=True):
        assert line.startswith(f"::{finding['severity']} file=deploy/re funds/{finding['file']},")
        assert f",title={finding['code']}::" in line
        assert (f",line={finding['line']},col={finding['column']}," in line) == (finding["line"] > 0)


def test_text_of_a_file_can_not_become_a_command_of_github() -> None:
    hostile = Problem("error", "a,b:c%\n.cedar", 1, 2, "syntax", "one\r\n::set-output name=x::100%\x1b[2J")
    report = reports.Report(Path("/nowhere"), [hostile], [], None)
    assert reports.github(report) == [
        "::error file=a%2Cb%3Ac%25%0A.cedar,line=1,col=2,title=syntax::one%0D%0A::set-output name=x::100%25\\u001b[2J"
    ]
    placed = reports.sarif(report)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert placed["artifactLocation"]["uri"] == "a%2Cb%3Ac%25%0A.cedar"


def test_a_code_that_is_error_and_warning_has_the_level_of_the_error() -> None:
    error = Problem("error", "a", 1, 1, "cedar", "one")
    report = reports.Report(Path("/nowhere"), [replace(error, severity="warning"), error], [], None)
    one = reports.sarif(report)["runs"][0]
    assert one["tool"]["driver"]["rules"][0]["defaultConfiguration"] == {"level": "error"}
    assert [result["level"] for result in one["results"]] == ["warning", "error"]


def test_a_run_has_no_more_results_than_github_takes_and_errors_come_first() -> None:
    warning = Problem("warning", "a", 1, 1, "cedar", "one")
    many = [*[warning] * reports.MAX_RESULTS, replace(warning, severity="error")]
    one = reports.sarif(reports.Report(Path("/nowhere"), [*many], [], None))["runs"][0]
    assert len(one["results"]) == reports.MAX_RESULTS
    assert one["results"][0]["level"] == "error"


def test_json_and_another_format_contradict_each_other(run: Commands, directory: Path) -> None:
    status, out, err = run("check", "--config", directory, "--json", "--format", "sarif")
    assert (status, out) == (2, "")
    assert "contradict" in err
    assert run("check", "--config", directory, "--json", "--format", "json")[0] == 1


# ---- a source that nobody authenticates ------------------------------------------------------------------


def test_a_source_whose_publisher_nobody_can_be_is_an_error(tmp_path: Path) -> None:
    made = starter.create(tmp_path / "refunds", now=datetime.now(UTC)).directory
    edit(made / "signalwarden.yaml", "may: [publish]", "may: [read]")
    with pytest.raises(ConfigurationError) as caught:
        config.load(made, NOW_US)
    register = (made / "signals.yaml").read_text().splitlines()
    assert {finding.code for finding in caught.value.findings} == {"unauthenticated_source"}
    assert len(caught.value.findings) == register_pushes(register)
    for finding in caught.value.findings:
        assert "{kind: push" in register[finding.line - 1]
        assert register[finding.line - 1].index("{kind: push") >= finding.column - 1 > 0
        assert starter.PUBLISHER in finding.message
    edit(made / "signalwarden.yaml", "may: [read]", "may: [read, publish]")
    assert config.load(made, NOW_US).warnings == ()


def test_a_publisher_may_come_with_a_certificate_instead(tmp_path: Path) -> None:
    made = starter.create(tmp_path / "refunds", now=datetime.now(UTC)).directory
    edit(made / "signalwarden.yaml", "may: [publish]", "may: [read]")
    edit(made / "signalwarden.yaml", "listen:", 'listen:\n  signals: "127.0.0.1:0"')
    with (made / "signalwarden.yaml").open("a") as settings:
        settings.write("tls: {cert: a.pem, key: b.pem, client_ca: c.pem}\n")
    assert config.load(made, NOW_US).warnings == ()


def register_pushes(lines: list[str]) -> int:
    return sum("{kind: push" in line for line in lines)


# ---- every code has its line ------------------------------------------------------------------------------

CODE: Final = re.compile(r'"([a-z]+(?:_[a-z]+)*)"')
# Calls of the core that make a finding, or carry its code to where one is made.
MAKERS: Final = re.compile(r"\.(?:error|warning|wrong|misuse|parsed)\(")
_TESTS: Final = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\n]*\]\s*)*mod \w+ \{.*", re.DOTALL)
PYTHON_MAKERS: Final = {"Problem", "_Slip", "_error", "_warning", "PydanticCustomError"}


def arguments(text: str, opening: int) -> list[str]:
    """The arguments of a call in Rust, as written."""
    depth, start, quoted = 0, opening + 1, False
    found: list[str] = []
    at = opening
    while at < len(text):
        letter = text[at]
        if quoted:
            at += letter == "\\"
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0:
                return [*found, text[start:at].strip()]
        elif letter == "," and depth == 1:
            found.append(text[start:at].strip())
            start = at + 1
        at += 1
    return found


def codes_of_the_core() -> Iterator[tuple[str, str]]:
    """The literal codes, with their files. A key is no code: where both stand, the code is the later one."""
    for path in sorted((ROOT / "rust_core/core/src").rglob("*.rs")):
        if path.name == "tests.rs":
            continue
        text = _TESTS.sub("", re.sub(r"^\s*//[^\n]*", "", path.read_text(), flags=re.MULTILINE))
        for call in MAKERS.finditer(text):
            given = [CODE.fullmatch(argument) for argument in arguments(text, call.end() - 1)]
            literals = [found[1] for found in given if found]
            if literals:
                yield literals[-1], path.name


def codes_of_python() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "python/signalwarden").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in PYTHON_MAKERS:
                words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                literals = [word for word in words if isinstance(word, str) and re.fullmatch("[a-z_]+", word)]
                literals = [word for word in literals if word not in ("error", "warning")]
                if literals:
                    yield literals[-1], path.name


def test_every_code_that_can_be_given_has_its_help() -> None:
    given = dict([*codes_of_the_core(), *codes_of_python()])
    assert len(given) > 80
    assert {"unregistered_signal", "bad_spiffe_id", "context_whole", "bad_value", "outside"} <= set(given)
    assert {code: file for code, file in given.items() if code not in findings.HELP} == {}


def test_codes_that_the_vectors_expect_have_their_help() -> None:
    seen = set(re.findall(r'"code": "(\w+)"', (ROOT / "tests/vectors/register.json").read_text()))
    seen |= set(re.findall(r'"code": "(\w+)"', (ROOT / "tests/vectors/routes.json").read_text()))
    assert seen - set(findings.HELP) == set()


def test_help_is_one_short_line() -> None:
    for code, text in findings.HELP.items():
        assert re.fullmatch(r"[A-Z`].{10,300}\.", text), code
    assert findings.help_of("never_heard_of") == "See the message."
