"""Publishing to a real server: by gRPC over mutual TLS and by HTTP, and what was acknowledged is there after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from signalwarden import request_json, starter
from signalwarden.decision_log import now_us, rfc3339
from signalwarden.demo_stage import Authority, Credential
from signalwarden.publish_door import PUBLISH_METHOD
from signalwarden.server import CHECK_METHOD
from tests import publish_proto

TIMEOUT_S = 20.0
PUBLISHER = "spiffe://prod.example/ns/signals/sa/publisher"
KILLS = 4
LOAD_S = 0.7
"""Long enough for a hundred groups of batches, before each kill."""


@dataclass
class Running:
    """A server in a process of its own, on ports that the system chose."""

    made: starter.Starter
    authority: Authority
    process: subprocess.Popen[str]
    check: str
    admin: str
    signals: str

    @contextlib.contextmanager
    def channel(self, credential: Credential) -> Iterator[grpc.Channel]:
        secure = grpc.ssl_channel_credentials(
            self.authority.bundle.read_bytes(),
            credential.key.read_bytes(),
            credential.certificate.read_bytes(),
        )
        port = self.signals.rpartition(":")[2]
        with grpc.secure_channel(f"localhost:{port}", secure) as opened:
            yield opened

    def decide(self) -> bytes:
        request = request_json.to_bytes((self.made.directory / "samples" / "refund.json").read_bytes())
        with grpc.insecure_channel(self.check) as opened:
            return bytes(opened.unary_unary(CHECK_METHOD, bytes, bytes)(request, timeout=TIMEOUT_S))


@pytest.fixture
def place(tmp_path: Path) -> tuple[starter.Starter, Authority]:
    """The directory of `signalwarden init`, with a signals address."""
    made = starter.create(tmp_path / "refunds", now=datetime.now(UTC))
    authority = Authority(tmp_path / "ca", "prod.example")
    ours = authority.issue("spiffe://prod.example/signalwarden", dns=("localhost",))
    settings = made.directory / "signalwarden.yaml"
    text = settings.read_text()
    text = re.sub(r"127\.0\.0\.1:9\d+", "127.0.0.1:0", text)
    text = re.sub(r"(admin: \S+)", r'\1\n  signals: "127.0.0.1:0"', text, count=1)
    files = f"cert: {ours.certificate}, key: {ours.key}, client_ca: {authority.bundle}"
    settings.write_text(f"{text}\ntls: {{{files}}}\nsignals: {{max_rate: 1000000}}\n")
    return made, authority


@contextlib.contextmanager
def serving(made: starter.Starter, authority: Authority) -> Iterator[Running]:
    command = [sys.executable, "-m", "signalwarden.cli", "serve", "--config", str(made.directory)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"check on (\S+), admin on (\S+), signals on (\S+),", line):
                yield Running(made, authority, process, *found.groups())
                return
        raise AssertionError(said)
    finally:
        process.kill()
        process.communicate()


def of(name: str, subject: str, value: object, at_us: int) -> Any:
    return publish_proto.signal(name, subject, value, at_us)


def stream(channel: grpc.Channel, requests: Iterator[bytes]) -> Any:
    call = channel.stream_stream(PUBLISH_METHOD, request_serializer=bytes, response_deserializer=bytes)
    return call(requests, timeout=TIMEOUT_S)


def test_a_publisher_with_a_certificate_changes_the_next_decision(
    place: tuple[starter.Starter, Authority],
) -> None:
    made, authority = place
    with serving(made, authority) as server:
        credential = authority.issue(PUBLISHER)
        ready = httpx.get(f"http://{server.admin}/readyz", timeout=TIMEOUT_S, trust_env=False).json()
        assert ready["doors"] == {"check": True, "admin": True, "signals": True}
        assert b"signal_unavailable" in server.decide()
        good = [of("device_trust", starter.AGENT, 4, now_us()), of("posture", starter.AGENT, "ok", now_us())]
        with server.channel(credential) as channel:
            [answer] = stream(channel, iter([publish_proto.request(*good)]))
            assert publish_proto.response(answer) == {"accepted": 2, "rejected": []}
            assert b"signal_unavailable" not in server.decide()
            wrong = [of("device_trust", starter.AGENT, "four", now_us()), of("nothing", "*", True, now_us())]
            [answer] = stream(channel, iter([publish_proto.request(*wrong)]))
            rejected = publish_proto.response(answer)["rejected"]
            assert [(entry["index"], entry["reason"]) for entry in rejected] == [
                (0, "wrong_type"),
                (1, "unknown_signal"),
            ]
        with server.channel(authority.issue("spiffe://prod.example/ns/other/sa/other")) as channel:
            [answer] = stream(channel, iter([publish_proto.request(*good)]))
            assert {entry["reason"] for entry in publish_proto.response(answer)["rejected"]} == {
                "wrong_publisher"
            }
        with (
            server.channel(authority.issue("spiffe://other.example/x")) as channel,
            pytest.raises(grpc.RpcError),
        ):
            list(stream(channel, iter([publish_proto.request(*good)])))
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(TIMEOUT_S) == 0
    lines = [json.loads(line) for line in (made.directory / "var/decisions.jsonl").read_bytes().splitlines()]
    [refused] = [line for line in lines if line.get("change") == "client_refused"]
    assert refused["client"] == "spiffe://other.example/x"


@dataclass
class Acknowledged:
    """What publishers were told is kept: the newest time of each subject. Subjects are each one publisher's own."""

    newest: dict[str, int] = field(default_factory=dict)
    batches: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)

    def subjects(self, way: str, number: int, turn: int) -> list[str]:
        """A few that are told again and again, and a new one each time."""
        base = f"spiffe://prod.example/{way}/{number}"
        return [*(f"{base}/{n}" for n in range(5)), f"{base}/turn-{turn}-{now_us()}"]

    def told(self, way: str, subjects: list[str], at_us: int) -> None:
        self.newest.update(dict.fromkeys(subjects, at_us))
        self.batches[way] += 1


def by_http(server: Running, told: Acknowledged, number: int) -> None:
    url = f"http://{server.admin}/v1/signals"
    headers = {"authorization": f"Bearer {server.made.publisher_token}"}
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, headers=headers) as http:
        turn = 0
        while not told.stop.is_set():
            turn, at_us = turn + 1, now_us()
            subjects = told.subjects("http", number, turn)
            batch = [
                {"name": "device_trust", "subject": subject, "value": turn % 5, "observed_at": rfc3339(at_us)}
                for subject in subjects
            ]
            try:
                answer = http.post(url, json={"signals": batch}).json()
            except httpx.TransportError:
                return
            assert answer == {"accepted": len(subjects), "rejected": []}
            told.told("http", subjects, at_us)


def by_grpc(server: Running, told: Acknowledged, number: int) -> None:
    sent: list[tuple[list[str], int]] = []

    def requests() -> Iterator[bytes]:
        turn = 0
        while not told.stop.is_set():
            turn, at_us = turn + 1, now_us()
            subjects = told.subjects("grpc", number, turn)
            sent.append((subjects, at_us))
            yield publish_proto.request(
                *(of("device_trust", subject, turn % 5, at_us) for subject in subjects)
            )
            while len(sent) > 20 and not told.stop.is_set():
                time.sleep(0.001)  # so many in flight, not more

    with server.channel(server.authority.issue(PUBLISHER)) as channel, contextlib.suppress(grpc.RpcError):
        for answer in stream(channel, requests()):
            subjects, at_us = sent.pop(0)
            assert publish_proto.response(answer) == {"accepted": len(subjects), "rejected": []}
            told.told("grpc", subjects, at_us)


def known(server: Running, subjects: list[str]) -> dict[str, int]:
    """When what the server knows of each subject was observed."""
    headers = {"authorization": f"Bearer {server.made.operator_token}"}
    found: dict[str, int] = {}
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, headers=headers) as http:
        for subject in subjects:
            answer = http.get(f"http://{server.admin}/v1/signals", params={"subject": subject})
            for entry in answer.raise_for_status().json()["signals"]:
                at = datetime.fromisoformat(entry["observed_at"])
                found[subject] = round(at.timestamp() * 1_000_000)
    return found


def test_every_acknowledged_value_survives_a_kill_under_load_and_none_is_rolled_back(
    place: tuple[starter.Starter, Authority],
) -> None:
    made, authority = place
    told = Acknowledged()
    for _ in range(KILLS):
        told.stop.clear()
        with serving(made, authority) as server, ThreadPoolExecutor(6) as pool:
            running = [pool.submit(by_http, server, told, number) for number in range(3)]
            running += [pool.submit(by_grpc, server, told, number) for number in range(3)]
            time.sleep(LOAD_S)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(TIMEOUT_S)
            told.stop.set()
            for future in running:
                future.result(TIMEOUT_S)
        again = [subject for subject in told.newest if "turn-" not in subject]
        once = [subject for subject in told.newest if "turn-" in subject][-200:]
        with serving(made, authority) as server:
            after = known(server, [*again, *once])
        assert [subject for subject in (*again, *once) if after.get(subject, 0) < told.newest[subject]] == []
    assert min(told.batches["http"], told.batches["grpc"]) > 10 * KILLS


def test_the_example_in_python_publishes(
    place: tuple[starter.Starter, Authority],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the page has it, but for the modules that protoc would make."""
    page = (Path(__file__).parents[2] / "docs/publishing.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    messages, stubs = publish_proto.modules()
    monkeypatch.setitem(sys.modules, "signals_pb2", messages)
    monkeypatch.setitem(sys.modules, "signals_pb2_grpc", stubs)
    example: dict[str, Any] = {}
    exec(code, example)
    made, authority = place
    credential = authority.issue(PUBLISHER)
    with serving(made, authority) as server:
        batches = [
            [
                example["signal"]("device_trust", starter.AGENT, long_value=4),
                example["signal"]("posture", starter.AGENT, text_value="ok"),
            ],
            [example["signal"]("posture", starter.AGENT, bool_value=True)],
        ]
        address = f"localhost:{server.signals.rpartition(':')[2]}"
        sent = example["publish"](address, authority.bundle, credential.key, credential.certificate, batches)
        assert list(sent) == [2, 0]
        assert b"signal_unavailable" not in server.decide()
    assert capsys.readouterr().out.startswith("signals[0]: wrong_type: ")
