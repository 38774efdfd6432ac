"""The command line as a user meets it: what is printed where, exit statuses, and never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalwarden import __version__, starter
from signalwarden.decision_log import tail
from signalwarden.errors import BadInputError
from tests.commanding import Commands, Ran

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "docs" / "examples").iterdir() if path.is_dir())


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Runs a command in this process; standard input is empty unless given."""
    for name in ("SIGNALWARDEN_TOKEN", "SIGNALWARDEN_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return Commands(capfd)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A fresh starter directory."""
    return starter.create(tmp_path / "refunds", now=datetime.now(UTC)).directory


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# ---- init -----------------------------------------------------------------------------------------------


def test_init_makes_a_directory_that_checks_without_a_word(run: Commands, tmp_path: Path) -> None:
    made = run("init", tmp_path / "new")
    assert made.status == 0, made.err
    assert "signalwarden check" in made.out
    checked = run("check", "--config", tmp_path / "new")
    assert (checked.status, checked.err) == (0, "")
    assert checked.out == f"{tmp_path / 'new'} is good: 0 errors, 0 warnings\n"


def test_init_keeps_the_digest_of_a_token_and_prints_the_token_once(run: Commands, tmp_path: Path) -> None:
    made = run("init", tmp_path / "new", "--json").json()
    files = [path.read_text() for path in (tmp_path / "new").rglob("*") if path.is_file()]
    for token in (made["publisher_token"], made["operator_token"]):
        assert not any(token in text for text in files)
        assert sum(hashlib.sha256(token.encode()).hexdigest() in text for text in files) == 1
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)


def test_init_fills_every_placeholder(directory: Path) -> None:
    assert not any("${" in path.read_text() for path in directory.rglob("*") if path.is_file())


def test_init_never_overwrites(run: Commands, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not an empty directory" in run("init", tmp_path).sentence
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert "is not an empty directory" in run("init", tmp_path / "notes.txt").sentence


# ---- check ----------------------------------------------------------------------------------------------


def test_check_finds_the_mistakes_of_all_files_in_one_pass(run: Commands, directory: Path) -> None:
    replace(directory / "signalwarden.yaml", "trust_domain:", "trust_domian:")
    replace(directory / "routes.yaml", "tier: coarse", "tier: course")
    replace(directory / "signals.yaml", "type: long", "type: lnog")
    checked = run("check", "--config", directory)
    assert checked.status == 1
    lines = checked.out.splitlines()
    for file in ("signalwarden.yaml", "routes.yaml", "signals.yaml"):
        assert any(line.startswith(f"{file}:") and ": error: " in line for line in lines), checked.out
    assert "can't be loaded: " in lines[-1]
    assert any("trust_domain" in line for line in lines)


def test_check_as_json_has_every_finding_with_its_place(run: Commands, directory: Path) -> None:
    replace(directory / "routes.yaml", "tier: coarse", "tier: course")
    checked = run("check", "--config", directory, "--json")
    answer = checked.json()
    assert (checked.status, answer["ok"], answer["revision"]) == (1, False, None)
    assert answer["errors"] >= 1
    first = next(finding for finding in answer["findings"] if finding["file"] == "routes.yaml")
    assert "did you mean `coarse`?" in first["message"]
    assert first["line"] > 0
    assert set(first) == {"severity", "file", "line", "column", "code", "message"}


def test_warnings_alone_are_no_failure(run: Commands, directory: Path) -> None:
    (directory / "stray.cedar").write_text("// left behind\n")
    checked = run("check", "--config", directory)
    assert checked.status == 0
    assert "1 warning" in checked.out


def test_an_unreadable_directory_is_an_error_not_a_finding(run: Commands, tmp_path: Path) -> None:
    assert "can't be read" in run("check", "--config", tmp_path / "nowhere").sentence


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_checks(run: Commands, example: Path) -> None:
    checked = run("check", "--config", example, "--json").json()
    assert checked["errors"] == 0, checked["findings"]


# ---- decide ---------------------------------------------------------------------------------------------


def test_decide_prints_the_record_and_allows_what_the_story_allows(run: Commands, directory: Path) -> None:
    samples = directory / "samples"
    ran = run("decide", "--config", directory, "--request", samples / "refund.json", "--signals",
              samples / "signals.json", "--expect", "allow")  # fmt: skip
    assert (ran.status, ran.err) == (0, ""), ran
    record = ran.json()
    assert (record["outcome"], record["reason"]) == ("allow", "allowed")
    assert record["principal"]["id"] == starter.AGENT
    assert record["request"]["action"] == "refund.create"


@pytest.mark.parametrize(
    ("signals", "headers", "reason"),
    [
        ({}, {}, "signal_unavailable"),
        ({"device_trust": 4}, {}, "signal_unavailable"),
        ({"posture": "ok"}, {}, "signal_unavailable"),
        ({"device_trust": 4, "posture": "ok"}, {}, "allowed"),
        ({"device_trust": 4, "posture": "ok"}, {"x-task-type": "refund"}, "allowed"),
        ({"device_trust": 4, "posture": "ok"}, {"x-task-type": "reporting"}, "policy_denied"),
        ({"device_trust": 4, "posture": "ok"}, {"x-device-trust": "0"}, "allowed"),
        ({"device_trust": 4, "posture": "compromised"}, {}, "policy_denied"),
        ({"device_trust": 2, "posture": "ok"}, {"x-device-trust": "5"}, "no_policy_permits"),
    ],
)
def test_the_starter_decides_as_its_readme_says(
    run: Commands,
    directory: Path,
    tmp_path: Path,
    signals: dict[str, Any],
    headers: dict[str, str],
    reason: str,
) -> None:
    request = json.loads((directory / "samples" / "refund.json").read_text())
    sent = request["attributes"]["request"]["http"]["headers"]
    del sent["x-task-type"]
    sent.update(headers)
    asked, told = tmp_path / "asked.json", tmp_path / "told.json"
    asked.write_text(json.dumps(request))
    entries = [{"name": name, "subject": starter.AGENT, "value": value} for name, value in signals.items()]
    told.write_text(json.dumps({"signals": entries}))
    ran = run("decide", "--config", directory, "--request", asked, "--signals", told, "--json")
    assert ran.json()["reason"] == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body": '{"amount": 50000}'}, "allowed"),
        ({"body": '{"amount": 50001}'}, "policy_denied"),
        ({"body": "{}"}, "allowed"),
        ({"body": '{"amount": "1"}'}, "malformed_request"),
        ({"body": ""}, "malformed_request"),
        ({"method": "GET", "path": "/v1/accounts/42", "body": ""}, "allowed"),
        ({"method": "GET", "path": "/v1/accounts/42/"}, "route_unknown"),
        ({"method": "DELETE", "path": "/v1/accounts/42"}, "route_unknown"),
    ],
)
def test_the_starter_reads_the_request_as_its_routes_say(
    run: Commands, directory: Path, tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    request = json.loads((directory / "samples" / "refund.json").read_text())
    http = request["attributes"]["request"]["http"]
    http.update(changes)
    http["size"] = str(len(http["body"]))
    http["headers"].update({":method": http["method"], ":path": http["path"]})
    del http["headers"]["content-length"]
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps(request))
    signals = directory / "samples" / "signals.json"
    ran = run("decide", "--config", directory, "--request", asked, "--signals", signals)
    assert ran.json()["reason"] == reason


TUESDAY, FRIDAY = "2026-11-24T10:00:00Z", "2026-11-27T13:00:00Z"


@pytest.mark.parametrize(
    ("example", "request_file", "signals", "at", "reason"),
    [
        ("nightly-export", "export.json", "signals.json", TUESDAY, "allowed"),
        ("nightly-export", "export.json", None, TUESDAY, "signal_unavailable"),
        ("nightly-export", "reply.json", "signals.json", TUESDAY, "allowed"),
        ("nightly-export", "reply.json", None, TUESDAY, "allowed"),
        ("nightly-export", "read.json", None, TUESDAY, "allowed"),
        ("deploy-window", "deploy.json", "signals.json", TUESDAY, "allowed"),
        ("deploy-window", "deploy.json", "frozen.json", TUESDAY, "no_policy_permits"),
        ("deploy-window", "elsewhere.json", "signals.json", TUESDAY, "no_policy_permits"),
        ("deploy-window", "deploy.json", "signals.json", FRIDAY, "no_policy_permits"),
        ("deploy-window", "deploy.json", None, TUESDAY, "signal_unavailable"),
    ],
)
def test_an_example_decides_as_its_readme_says(
    run: Commands, example: str, request_file: str, signals: str | None, at: str, reason: str
) -> None:
    folder = ROOT / "docs" / "examples" / example
    more: list[str | Path] = ["--signals", folder / "samples" / signals] if signals else []
    asked = folder / "samples" / request_file
    ran = run("decide", "--config", folder, "--request", asked, "--at", at, *more)
    assert ran.json()["reason"] == reason


def test_decide_exits_with_1_when_it_is_decided_otherwise(run: Commands, directory: Path) -> None:
    ran = run(
        "decide",
        "--config",
        directory,
        "--request",
        directory / "samples" / "refund.json",
        "--expect",
        "allow",
    )
    assert ran.status == 1
    assert ran.err == "signalwarden: expected allow, decided deny (`signal_unavailable`)\n"
    assert ran.json()["outcome"] == "deny"


def test_decide_at_a_time_sees_what_was_fresh_then(run: Commands, directory: Path, tmp_path: Path) -> None:
    observed = {"subject": starter.AGENT, "observed_at": "2026-11-24T10:00:00Z"}
    entries = [
        {"name": "device_trust", "value": 4, **observed},
        {"name": "posture", "value": "ok", **observed},
    ]
    told = tmp_path / "told.json"
    told.write_text(json.dumps({"signals": entries}))
    common = (
        "decide",
        "--config",
        directory,
        "--request",
        directory / "samples" / "refund.json",
        "--signals",
        told,
    )
    assert run(*common, "--at", "2026-11-24T10:04:59Z", "--expect", "allow").status == 0
    late = run(*common, "--at", "2026-11-24T11:06:00+01:00")
    assert late.json()["reason"] == "signal_unavailable"


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        ({"name": "posture", "value": "fine"}, "wrong_type"),
        ({"name": "postur", "value": "ok"}, "unknown_signal"),
        ({"name": "posture", "value": "ok", "observed_at": "2099-01-01T00:00:00Z"}, "future"),
    ],
)
def test_decide_refuses_signals_that_the_server_would_refuse(
    run: Commands, directory: Path, tmp_path: Path, signal: dict[str, Any], reason: str
) -> None:
    told = tmp_path / "told.json"
    told.write_text(json.dumps({"signals": [{"subject": starter.AGENT, **signal}]}))
    ran = run(
        "decide", "--config", directory, "--request", directory / "samples" / "refund.json", "--signals", told
    )
    assert "signals[0]: " in ran.sentence
    assert f"(`{reason}`)" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "expected an object at the top"),
        ('{"atributes": {}}', "atributes"),
        ('{"attributes": 3}', "is not a CheckRequest"),
        ('{"attributes": {"request": {"http": {"method": 3}}}}', "`method`"),
        ('{"attributes": {"request": {"http": {"rawBody": "%%"}}}}', "is not base64"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_request_that_is_none_is_one_sentence(
    run: Commands, directory: Path, tmp_path: Path, text: str, said: str
) -> None:
    asked = tmp_path / "asked.json"
    asked.write_text(text)
    assert said in run("decide", "--config", directory, "--request", asked).sentence


def test_a_check_request_without_anything_is_denied_as_malformed(
    run: Commands, directory: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.json"
    asked.write_text("{}")
    record = run("decide", "--config", directory, "--request", asked).json()
    assert (record["outcome"], record["reason"]) == ("deny", "malformed_request")


# ---- arguments and errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "bogus"),
        (["check", "--bogus"], "--bogus"),
        (["decide"], "--request"),
        (["decide", "--request", "x", "--expect", "maybe"], "maybe"),
        (["decide", "--request", "-", "--signals", "-"], "stdin"),
        (["decide", "--request", "/nowhere/at/all"], "can't be read"),
        (["decide", "--request", "{sample}", "--at", "yesterday"], "RFC 3339"),
        (["decide", "--request", "{sample}", "--at", "2026-11-24T10:00:00"], "time zone"),
        (["signals", "publish", "posture"], "expected NAME SUBJECT VALUE"),
        (["signals", "publish", "a", "b", "c", "--file", "x"], "not both"),
        (["signals", "publish", "a", "b", "c"], "SIGNALWARDEN_TOKEN"),
        (["signals", "list", "--token-file", "/nowhere"], "`/nowhere` can't be read"),
        (["signals", "values", "--limit", "0"], "--limit"),
        (["log", "tail", "--config", "/nowhere"], "can't be read"),
        (["serve", "--config", "/nowhere"], "can't be read"),
        (["envoy", "config", "--config", "/nowhere"], "can't be read"),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Commands, directory: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(directory)
    sample = str(directory / "samples" / "refund.json")
    assert said in run(*[argument.format(sample=sample) for argument in arguments]).sentence


# httpcore leaves the socket of a failed connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_is_not_there_is_one_sentence(
    run: Commands, directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace(directory / "signalwarden.yaml", "127.0.0.1:9292", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("SIGNALWARDEN_TOKEN", "some-token")
    assert "is `signalwarden serve` running?" in run("signals", "list", "--config", directory).sentence


def test_a_token_is_never_repeated(run: Commands, directory: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("not a\ntoken-at-all\n")
    ran = run("signals", "list", "--config", directory, "--token-file", token)
    assert "token-at-all" not in ran.sentence


def test_a_fault_of_ours_says_what_happened_and_how_to_report_it(
    run: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the moon fell down\nand more")

    monkeypatch.setattr(starter, "create", broken)
    said = run("init", tmp_path / "new").sentence
    assert "RuntimeError the moon fell down; please report it" in said
    assert "SIGNALWARDEN_DEBUG=1" in said


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, "SIGNALWARDEN_DEBUG": "1"}
    command = [sys.executable, "-m", "signalwarden.cli", "check", "--config", str(tmp_path / "nowhere")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "Traceback" in ran.stderr


@pytest.mark.parametrize(
    "verb",
    ["", "init", "check", "fmt", "diff", "serve", "demo", "decide", "signals", "signals publish", "signals list", "signals show",
     "signals document", "signals values", "signals approve", "signals publisher", "signals publisher list",
     "signals publisher disable", "signals publisher enable", "signals streams", "signals resynchronise", "revoke",
     "revocations", "approvals", "approvals list", "approvals show", "approvals approve", "approvals deny",
     "approvals watch", "signals override", "signals overrides", "log", "log tail", "log explain", "log stats",
     "log replay", "log simulate", "log brittleness",
     "envoy", "envoy config", "test"],
)  # fmt: skip
def test_every_verb_explains_itself(run: Commands, verb: str) -> None:
    ran = run(*verb.split(), "--help")
    assert ran.status == 0
    assert "Usage: " in ran.out


def test_the_version_is_told_without_a_verb(run: Commands) -> None:
    assert run("--version") == Ran(0, f"signalwarden {__version__}\n", "")


@pytest.mark.parametrize("kind", ["sidecar", "gateway"])
def test_envoy_config_is_for_this_directory(run: Commands, directory: Path, kind: str) -> None:
    ran = run("envoy", "config", "--config", directory, "--kind", kind)
    assert ran.status == 0, ran.err
    assert "envoy.filters.http.ext_authz" in ran.out
    assert "9191" in ran.out


# ---- log tail -------------------------------------------------------------------------------------------


def record(number: int, outcome: str = "allow", **more: Any) -> dict[str, Any]:
    return {
        "v": 1, "kind": "decision", "decision_id": f"id-{number}", "time": "2026-11-24T10:23:45.123456Z",
        "outcome": outcome, "reason": "allowed" if outcome == "allow" else "policy_denied",
        "request": {"method": "POST", "host": "pay", "path": "/r", "action": "refund.create", "resource": 'Account::"1"'},
        "principal": {"id": starter.AGENT},
        "signals": [{"name": "posture", "state": "fresh", "value": "ok", "influence": "decisive"}], **more,
    }  # fmt: skip


def write(path: Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in records)


@pytest.fixture
def log(directory: Path) -> Path:
    return directory / "var" / "decisions.jsonl"


def test_tail_shows_the_last_records_one_line_each(run: Commands, directory: Path, log: Path) -> None:
    write(log, *(record(number, "deny" if number % 3 == 0 else "allow") for number in range(200)))
    ran = run("log", "tail", "--config", directory, "-n", "3")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.rsplit(maxsplit=1)[-1] for line in lines] == ["id-197", "id-198", "id-199"]
    assert "posture=ok (decisive)" in lines[0]
    assert "\x1b" not in ran.out
    denied = run("log", "tail", "--config", directory, "-n", "3", "--deny", "--json").out.splitlines()
    assert [json.loads(line)["decision_id"] for line in denied] == ["id-192", "id-195", "id-198"]


def test_tail_goes_on_into_rotated_files_and_skips_what_is_no_record(
    run: Commands, directory: Path, log: Path
) -> None:
    write(log.with_name("decisions-000001-20261123T101500Z.jsonl"), record(1), record(2))
    write(log.with_name("decisions-000002-20261123T111500Z.jsonl"), record(3))
    write(log, record(4))
    with log.open("a") as file:
        file.write('{"cut": "of\n{"v":1,"half')
    shown = run("log", "tail", "--config", directory, "-n", "3", "--json").out.splitlines()
    assert [json.loads(line)["decision_id"] for line in shown] == ["id-2", "id-3", "id-4"]


def test_tail_without_a_log_shows_nothing(run: Commands, directory: Path) -> None:
    assert run("log", "tail", "--config", directory) == Ran(0, "", "")


def test_tail_shows_change_records_too(run: Commands, directory: Path, log: Path) -> None:
    write(
        log,
        {
            "v": 1,
            "kind": "change",
            "time": "2026-11-24T10:00:00Z",
            "change": "server_started",
            "actor": "server",
        },
    )
    assert run("log", "tail", "--config", directory).out == (
        "2026-11-24 10:00:00.000  CHANGE  change=server_started  actor=server\n"
    )


def test_nothing_that_a_terminal_obeys_is_printed(run: Commands, directory: Path, log: Path) -> None:
    hostile = "/x\x1b[2J\x07\r\u202e\n[bold]y"
    write(log, record(1, request={"method": "GET", "host": "h", "path": hostile}))
    out = run("log", "tail", "--config", directory).out
    assert out.count("\n") == 1
    assert not set(out) & {"\x1b", "\x07", "\r", "\u202e"}
    assert "[bold]y" in out


@pytest.fixture
def followed(log: Path) -> Iterator[tuple[list[str], threading.Event]]:
    """What a follower of the log has seen."""
    write(log, record(0))
    seen: list[str] = []
    stop = threading.Event()
    opened = tail.Tail(log)
    assert [entry["decision_id"] for _, entry in opened.last(10, tail.wanted(denied_only=False))] == ["id-0"]

    def follow() -> None:
        with opened:
            for _, entry in opened.follow(tail.wanted(denied_only=False), stopped=stop.is_set, poll=0.01):
                seen.append(entry["decision_id"])

    thread = threading.Thread(target=follow)
    thread.start()
    yield seen, stop
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def wait_until(seen: list[str], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(seen) < count and time.monotonic() < deadline:
        time.sleep(0.005)


def test_follow_misses_nothing_and_repeats_nothing_over_rotation(
    log: Path, followed: tuple[list[str], threading.Event]
) -> None:
    seen, _ = followed
    write(log, record(1))
    wait_until(seen, 1)
    write(log, record(2))
    log.rename(log.with_name("decisions-000001-20261124T101500Z.jsonl"))
    write(log.with_name("decisions-000001-20261124T101500Z.jsonl"), record(3))
    write(log, record(4))
    wait_until(seen, 4)
    assert seen == ["id-1", "id-2", "id-3", "id-4"]


def test_follow_waits_for_whole_lines_and_bears_a_half_one_taken_back(
    log: Path, followed: tuple[list[str], threading.Event]
) -> None:
    seen, _ = followed
    size = log.stat().st_size
    with log.open("a") as file:
        file.write('{"v":1,"kind":"decision","decision_id":"never')
    time.sleep(0.05)
    os.truncate(log, size)
    write(log, record(1))
    wait_until(seen, 1)
    assert seen == ["id-1"]


def test_follow_starts_over_when_the_file_is_emptied(
    log: Path, followed: tuple[list[str], threading.Event]
) -> None:
    seen, _ = followed
    os.truncate(log, 0)
    time.sleep(0.05)
    write(log, record(1))
    wait_until(seen, 1)
    assert seen == ["id-1"]


# ---- the library parts ----------------------------------------------------------------------------------


def test_create_raises_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError):
        starter.create(tmp_path / "file", now=datetime.now(UTC))


def test_the_package_carries_its_templates(directory: Path) -> None:
    made = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert made == {
        "README.md", "entities.cedarschema", "entities.json", "policies/accounts.cedar", "policies/refunds.cedar",
        "routes.yaml", "samples/refund.json", "samples/signals.json", "signals.yaml", "signalwarden.yaml",
        "tests/accounts.yaml", "tests/refunds.yaml",
    }  # fmt: skip
