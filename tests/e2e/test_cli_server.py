"""The command line against a server that it started itself: serve, publish, list, decide over gRPC, tail, stop."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden import starter
from tests.served import Server, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with served(tmp_path) as running:
        yield running


def records(server: Server, count: int) -> list[dict[str, object]]:
    """The last decisions, as `log tail` shows them; they are on disk within half a second."""
    deadline = time.monotonic() + 10
    while True:
        lines = server.run("log", "tail", "-n", "1000", "--json").splitlines()
        found = [entry for entry in map(json.loads, lines) if entry["kind"] == "decision"]
        if len(found) >= count or time.monotonic() > deadline:
            return found[-count:]
        time.sleep(0.1)


def told(server: Server, token: str) -> dict[str, Any]:
    """The register, live. Decisions are counted when their records are written."""
    register: dict[str, Any] = json.loads(server.run("signals", "list", "--json", token=token))
    return register


def test_a_directory_is_served_fed_watched_and_stopped(server: Server) -> None:
    publisher, operator = server.made.publisher_token, server.made.operator_token
    server.ask()
    assert "1 accepted" in server.run(
        "signals", "publish", "device_trust", starter.AGENT, "4", token=publisher
    )
    assert "1 accepted" in server.run("signals", "publish", "posture", starter.AGENT, "ok", token=publisher)
    server.ask()
    assert [entry["reason"] for entry in records(server, 2)] == ["signal_unavailable", "allowed"]

    listed = json.loads(server.run("signals", "values", "--json", token=operator))
    assert {(entry["name"], entry["value"], entry["state"]) for entry in listed["signals"]} == {
        ("device_trust", 4, "fresh"),
        ("posture", "ok", "fresh"),
    }
    register = {entry["name"]: entry["live"] for entry in told(server, operator)["signals"]}
    assert register["posture"]["states"]["fresh"] == register["posture"]["states"]["missing"] == 1
    assert register["posture"]["subjects"] == 1
    assert "1 fresh, 1 missing" in server.run("signals", "list", token=operator)
    assert "subjects: 1, freshest " in server.run("signals", "show", "posture", token=operator)
    table = server.run("signals", "values", token=operator)
    assert "device_trust" in table
    assert starter.AGENT in table

    server.process.send_signal(signal.SIGTERM)
    _, err = server.process.communicate(timeout=30)
    assert server.process.returncode == 0, err
    assert "Traceback" not in err
    assert publisher not in err


def test_a_publisher_is_switched_off_for_the_next_decision_and_over_a_restart(server: Server) -> None:
    publisher, operator = server.made.publisher_token, server.made.operator_token
    feed = "spiffe://prod.example/ns/signals/sa/publisher"

    def tell(status: int = 0) -> str:
        return server.run(
            "signals", "publish", "device_trust", starter.AGENT, "4", token=publisher, status=status
        )

    def asked() -> object:
        server.asked += 1
        server.ask()
        return records(server, server.asked)[-1]["reason"]

    tell()
    server.run("signals", "publish", "posture", starter.AGENT, "ok", token=publisher)
    assert asked() == "allowed"
    assert server.run("signals", "publisher", "disable", feed, token=operator) == f"{feed}: off\n"
    assert asked() == "signal_unavailable"
    assert "(`publisher_disabled`)" in tell(status=2)
    server.restart()
    assert asked() == "signal_unavailable"
    listed = server.run("signals", "publisher", "list", token=operator)
    assert re.search(rf"^{feed} +off +device_trust, posture ", listed, re.MULTILINE)
    assert server.run("signals", "publisher", "enable", feed, token=operator) == f"{feed}: on\n"
    assert asked() == "signal_unavailable"
    tell()
    server.run("signals", "publish", "posture", starter.AGENT, "ok", token=publisher)
    assert asked() == "allowed"
    one = server.run("signals", "publisher", "disable", feed, "--signal", "posture", token=operator)
    assert one == f"{feed}: on, but posture off\n"
    tell()
    assert asked() == "signal_unavailable"
    assert "`publisher_unknown`" in server.run(
        "signals", "publisher", "disable", feed + "s", token=operator, status=2
    )
    assert "`right_missing`" in server.run("signals", "publisher", "disable", feed, token=publisher, status=2)


def test_refusals_reach_the_user_as_one_sentence(server: Server) -> None:
    publisher, operator = server.made.publisher_token, server.made.operator_token
    agent = starter.AGENT
    assert "`token_refused`" in server.run("signals", "list", token="nobodys", status=2)
    assert "`right_missing`" in server.run("signals", "list", token=publisher, status=2)
    assert "`right_missing`" in server.run(
        "signals", "publish", "posture", agent, "ok", token=operator, status=2
    )
    assert "(`wrong_type`)" in server.run(
        "signals", "publish", "posture", agent, "fine", token=publisher, status=2
    )
    assert "(`unknown_signal`)" in server.run(
        "signals", "publish", "postur", agent, "ok", token=publisher, status=2
    )


def test_a_file_of_signals_is_published_and_the_bad_ones_are_named(server: Server, tmp_path: Path) -> None:
    batch = tmp_path / "batch.json"
    good = {"name": "device_trust", "subject": starter.AGENT, "value": 4}
    batch.write_text(json.dumps({"signals": [good, {**good, "value": "four"}]}))
    err = server.run("signals", "publish", "--file", str(batch), token=server.made.publisher_token, status=2)
    assert err.startswith("signalwarden: signals[1] was refused: ")
    whole = server.run("signals", "publish", "--file", str(server.made.directory / "samples" / "signals.json"),
                       token=server.made.publisher_token)  # fmt: skip
    assert whole == "2 accepted\n"


def test_an_edit_comes_into_force_by_itself_and_its_record_says_what_it_widens(server: Server) -> None:
    server.ask()
    policy = '\n@id("everyone-reads")\npermit (principal, action == Action::"account.read", resource);\n'
    with (server.made.directory / "policies" / "refunds.cedar").open("a") as file:
        file.write(policy)
    found: list[dict[str, object]] = []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        time.sleep(0.2)
        lines = server.run("log", "tail", "-n", "1000", "--json").splitlines()
        found = [r for r in map(json.loads, lines) if r.get("change") == "configuration_loaded"][1:]
    (loaded,) = found
    assert loaded["actor"] == "watch"
    assert loaded["words"] == [
        {
            "part": "policy",
            "name": "everyone-reads",
            "direction": "widens",
            "sentence": "`everyone-reads` is new and allows what it permits",
        }
    ]


def test_a_revocation_counts_at_the_next_request_and_after_a_kill(server: Server) -> None:
    publisher, operator = server.made.publisher_token, server.made.operator_token

    def asked() -> tuple[object, object]:
        server.asked += 1
        server.ask()
        record = records(server, server.asked)[-1]
        return record["reason"], record.get("detail")

    server.run("signals", "publish", "device_trust", starter.AGENT, "4", token=publisher)
    server.run("signals", "publish", "posture", starter.AGENT, "ok", token=publisher)
    assert server.run("revocations", token=operator) == "nothing is revoked\n"
    assert asked()[0] == "allowed"
    other = "spiffe://prod.example/ns/agents/sa/other"
    server.run("revoke", "--subject", other, "--reason", "not this one", token=operator)
    assert asked()[0] == "allowed"
    said = server.run(
        "revoke", "--subject", starter.AGENT, "--reason", "INC-7: its key leaked", token=operator
    )
    server.process.kill()
    assert re.fullmatch(rf"revoked: subject {starter.AGENT}, issued before \S+Z\n", said)
    server.restart()
    assert asked() == ("identity_invalid", "the certificate has been revoked")
    listed = json.loads(server.run("revocations", "--json", token=operator))
    assert [entry["subject"] for entry in listed["revocations"]] == [other, starter.AGENT]
    assert (listed["count"], listed["truncated"]) == (2, False)
    assert re.search(
        rf"^- +- +{starter.AGENT} +any +\S+Z", server.run("revocations", token=operator), re.MULTILINE
    )


def test_a_slip_at_revoking_is_told_and_revokes_nothing(server: Server) -> None:
    publisher, operator = server.made.publisher_token, server.made.operator_token
    why = ("--reason", "a slip")
    assert "`right_missing`" in server.run("revoke", "--jti", "a", *why, token=publisher, status=2)
    assert "64 lower-case hex digits" in server.run(
        "revoke", "--digest", "secret-of-somebody", *why, token=operator, status=2
    )
    assert 'one of "jti", "digest"' in server.run(
        "revoke", "--jti", "a", "--subject", "b", *why, token=operator, status=2
    )
    early = ("revoke", "--issued-before", "2026-11-01T00:00:00Z", *why)
    assert "say `--everyone`" in server.run(*early, token=operator, status=2)
    assert "missing option '--reason'" in server.run("revoke", "--jti", "a", token=operator, status=2).lower()
    assert server.run("revocations", token=operator) == "nothing is revoked\n"
    assert "revoked: issued before 2026-11-01" in server.run(*early, "--everyone", token=operator)
