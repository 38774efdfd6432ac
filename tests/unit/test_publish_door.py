"""`publish_door`: Publish over real mutual TLS, who may, in what order, within what bounds, and an orderly end."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from signalwarden import mtls, publish_door
from signalwarden.config import Address
from signalwarden.demo_stage import Authority, Credential
from signalwarden.errors import BadInputError, RateLimitedError, ServerError, StateError
from signalwarden.mtls import Certificates, Files
from signalwarden.publish_door import (
    MAX_PUBLISHER_STREAMS,
    MAX_REQUEST_BYTES,
    MAX_STREAMS,
    PUBLISH_METHOD,
    PublishDoor,
)
from tests import publish_proto

ROOT = Path(__file__).parents[2]
ANY = Address("127.0.0.1", 0)
TIMEOUT_S = 10.0
WHO = "spiffe://prod.example/ns/mdm/sa/publisher"
NOW_US = 1_795_600_000_000_000


@dataclass
class Host:
    """Takes everything, and writes it down."""

    domains: set[str] = field(default_factory=lambda: {"prod.example"})
    taken: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    refusals: list[tuple[str | None, str]] = field(default_factory=list)
    fault: Exception | None = None
    go: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go.set()

    def publish_as(self, body: bytes, publisher: str) -> bytes:
        self.entered.set()
        assert self.go.wait(TIMEOUT_S)
        if self.fault:
            raise self.fault
        document = json.loads(body)
        self.taken.append((document, publisher))
        count = len(document["signals"])
        return json.dumps({"accepted": count, "rejected": []}).encode()

    def welcomes(self, trust_domain: str) -> bool:
        return trust_domain in self.domains

    def refused_peer(self, publisher: str | None, detail: str) -> None:
        self.refusals.append((publisher, detail))


@dataclass
class Stage:
    host: Host
    door: PublishDoor
    authority: Authority
    folder: Path
    """Holds cert.pem, key.pem and ca.pem of the door."""

    @contextmanager
    def channel(
        self, credential: Credential | None = None, *, authority: Authority | None = None
    ) -> Iterator[grpc.Channel]:
        """A connection of a publisher with this certificate; by default one of `WHO`."""
        credential = credential or self.authority.issue(WHO)
        trust = (authority or self.authority).bundle.read_bytes()
        secure = grpc.ssl_channel_credentials(
            trust, credential.key.read_bytes(), credential.certificate.read_bytes()
        )
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"localhost:{self.door.address.port}", secure, options) as opened:
            yield opened


def put(credential: Credential, folder: Path) -> None:
    shutil.copy(credential.certificate, folder / "cert.pem")
    shutil.copy(credential.key, folder / "key.pem")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    authority = Authority(tmp_path / "ca", "prod.example")
    put(authority.issue("spiffe://prod.example/signalwarden", dns=("localhost",)), tmp_path)
    shutil.copy(authority.bundle, tmp_path / "ca.pem")
    host = Host()
    files = Certificates(Files(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"))
    door = PublishDoor(host, ANY, files)
    door.start()
    yield Stage(host, door, authority, tmp_path)
    host.go.set()
    door.stop(0.2)


def calling(channel: grpc.Channel, requests: Iterator[bytes], timeout: float | None = TIMEOUT_S) -> Any:
    call = channel.stream_stream(PUBLISH_METHOD, request_serializer=bytes, response_deserializer=bytes)
    return call(requests, timeout=timeout)


def one(name: str = "posture", value: object = "ok") -> bytes:
    return publish_proto.request(publish_proto.signal(name, WHO, value, NOW_US))


def publish(channel: grpc.Channel, *requests: bytes) -> list[dict[str, Any]]:
    return [publish_proto.response(answer) for answer in calling(channel, iter(requests))]


def refusal(channel: grpc.Channel, *requests: bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        publish(channel, *requests)
    return caught.value.code(), str(caught.value.details())


class Talk:
    """An open stream: say something, hear the answer."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call = calling(channel, iter(self._requests.get, None), timeout=None)

    def say(self, request: bytes) -> dict[str, Any]:
        self._requests.put(request)
        return publish_proto.response(next(self.call))

    def send(self, request: bytes) -> None:
        self._requests.put(request)

    def end(self) -> None:
        self._requests.put(None)


def test_each_request_has_its_answer_in_order_and_the_publisher_is_the_certificates(stage: Stage) -> None:
    with stage.channel() as channel:
        batches = [
            publish_proto.request(*(publish_proto.signal(f"s{n}", WHO, n, NOW_US),) * n) for n in range(5)
        ]
        assert [answer["accepted"] for answer in publish(channel, *batches)] == [0, 1, 2, 3, 4]
    assert {publisher for _, publisher in stage.host.taken} == {WHO}
    assert [len(document["signals"]) for document, _ in stage.host.taken] == [0, 1, 2, 3, 4]
    assert stage.host.taken[1][0]["signals"][0] == {
        "name": "s1",
        "subject": WHO,
        "value": 1,
        "observed_at": "2026-11-25T09:46:40.000000Z",
    }


def test_an_answer_comes_after_its_own_batch_and_before_the_next_is_sent(stage: Stage) -> None:
    with stage.channel() as channel:
        talk = Talk(channel)
        for number in range(3):
            assert talk.say(one())["accepted"] == 1
            assert len(stage.host.taken) == number + 1
        talk.end()
        assert list(talk.call) == []
        assert talk.call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("value", [True, -(2**60), "text", ["a", "b"]])
def test_each_kind_of_value_arrives(stage: Stage, value: object) -> None:
    with stage.channel() as channel:
        publish(channel, one(value=value))
    assert stage.host.taken[0][0]["signals"][0]["value"] == value


# ---- who ----------------------------------------------------------------------------------------------------


def test_a_client_without_a_certificate_gets_no_connection(stage: Stage) -> None:
    secure = grpc.ssl_channel_credentials(stage.authority.bundle.read_bytes())
    with grpc.secure_channel(f"localhost:{stage.door.address.port}", secure) as channel:
        assert refusal(channel, one())[0] is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(f"localhost:{stage.door.address.port}") as channel:
        assert refusal(channel, one())[0] is grpc.StatusCode.UNAVAILABLE
    assert stage.host.taken == []


def test_a_certificate_of_another_authority_gets_no_connection(stage: Stage) -> None:
    strange = Authority(stage.folder / "strange", "prod.example").issue(WHO)
    with stage.channel(strange) as channel:
        assert refusal(channel, one())[0] is grpc.StatusCode.UNAVAILABLE
    assert stage.host.taken == []


def test_a_certificate_without_a_spiffe_id_is_refused_and_written_down(stage: Stage) -> None:
    with stage.channel(stage.authority.issue(None, dns=("mdm.example",))) as channel:
        code, detail = refusal(channel, one())
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert stage.host.refusals == [(None, detail)]
    assert stage.host.taken == []


def test_a_publisher_of_another_trust_domain_is_refused_unless_federated(stage: Stage) -> None:
    other = stage.authority.issue("spiffe://other.example/mdm")
    with stage.channel(other) as channel:
        code, detail = refusal(channel, one())
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "`other.example`" in detail
    assert stage.host.refusals == [("spiffe://other.example/mdm", detail)]
    stage.host.domains.add("other.example")
    with stage.channel(other) as channel:
        assert publish(channel, one())[0]["accepted"] == 1


def test_a_stream_ends_when_its_trust_domain_is_no_longer_welcome(stage: Stage) -> None:
    with stage.channel() as channel:
        talk = Talk(channel)
        talk.say(one())
        stage.host.domains.clear()
        with pytest.raises(grpc.RpcError, match="PERMISSION_DENIED"):
            talk.say(one())
    assert len(stage.host.taken) == 1


def test_a_stream_ends_when_its_certificate_has_run_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage.channel() as channel:
        talk = Talk(channel)
        talk.say(one())
        monkeypatch.setattr(mtls, "expired", lambda _: True)
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            talk.say(one())
    assert stage.host.refusals == [(WHO, "the client certificate has run out")]


def test_rotated_files_count_from_the_next_connection_on(stage: Stage) -> None:
    successor = Authority(stage.folder / "successor", "prod.example")
    with stage.channel() as before:
        talk = Talk(before)
        talk.say(one())
        put(successor.issue("spiffe://prod.example/signalwarden", dns=("localhost",)), stage.folder)
        shutil.copy(successor.bundle, stage.folder / "ca.pem")
        with stage.channel(successor.issue(WHO), authority=successor) as after:
            assert publish(after, one())[0]["accepted"] == 1
        with stage.channel() as again:
            assert refusal(again, one())[0] is grpc.StatusCode.UNAVAILABLE
        assert talk.say(one())["accepted"] == 1


# ---- what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (BadInputError("the body is not JSON"), grpc.StatusCode.INVALID_ARGUMENT),
        (RateLimitedError("more than 5 values a second", 3), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (StateError("the disk is full"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_what_is_not_taken_ends_the_stream_and_says_why(
    stage: Stage, fault: Exception, code: grpc.StatusCode
) -> None:
    stage.host.fault = fault
    with stage.channel() as channel:
        call = calling(channel, iter([one()]))
        with pytest.raises(grpc.RpcError):
            next(call)
        assert (call.code(), call.details()) == (code, str(fault))
        if isinstance(fault, RateLimitedError):
            assert ("retry-after", "3") in [(key, value) for key, value in call.trailing_metadata()]


def test_a_fault_of_ours_is_not_told_to_the_client(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.host.fault = RuntimeError("the moon fell down")
    with stage.channel() as channel:
        code, detail = refusal(channel, one())
    assert code is grpc.StatusCode.INTERNAL
    assert "moon" not in detail
    assert "the moon fell down" in caplog.text


def test_what_is_no_request_is_refused_and_what_was_answered_before_stands(stage: Stage) -> None:
    with stage.channel() as channel:
        talk = Talk(channel)
        assert talk.say(one())["accepted"] == 1
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            talk.say(b"\xff\xff\xff")
    assert len(stage.host.taken) == 1


def test_a_message_above_the_limit_is_refused(stage: Stage) -> None:
    with stage.channel() as channel:
        assert refusal(channel, b"x" * (MAX_REQUEST_BYTES + 1))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stage.host.taken == []


def test_there_is_no_other_method(stage: Stage) -> None:
    with stage.channel() as channel:
        call = channel.unary_unary(
            "/signalwarden.v1.Signals/Other", request_serializer=bytes, response_deserializer=bytes
        )
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            call(b"", timeout=TIMEOUT_S)


# ---- how many, how long -------------------------------------------------------------------------------------


def test_a_publisher_has_so_many_streams_and_leaves_room_for_others(
    stage: Stage, eventually: Callable[..., None]
) -> None:
    with stage.channel() as channel, stage.channel() as second:
        talks = [Talk(channel) for _ in range(MAX_PUBLISHER_STREAMS)]
        for talk in talks:
            talk.say(one())
        assert stage.door.open_streams() == MAX_PUBLISHER_STREAMS
        code, detail = refusal(second, one())
        assert (code, WHO in detail) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        with stage.channel(stage.authority.issue("spiffe://prod.example/other")) as other:
            assert publish(other, one())[0]["accepted"] == 1
        talks[0].end()
        eventually(lambda: stage.door.open_streams() < MAX_PUBLISHER_STREAMS)
        assert publish(second, one())[0]["accepted"] == 1


def test_all_streams_together_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_door, "MAX_STREAMS", 2)
    with stage.channel() as channel:
        talks = [Talk(channel) for _ in range(2)]
        for talk in talks:
            talk.say(one())
        with stage.channel(stage.authority.issue("spiffe://prod.example/other")) as other:
            assert refusal(other, one()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "2 streams are open")


def test_a_client_that_breaks_off_frees_its_place(stage: Stage, eventually: Callable[..., None]) -> None:
    for _ in range(3):
        with stage.channel() as channel:
            talks = [Talk(channel) for _ in range(MAX_PUBLISHER_STREAMS)]
            for talk in talks:
                talk.say(one())
            for talk in talks[::2]:
                talk.call.cancel()
        eventually(lambda: stage.door.open_streams() == 0)


def test_silence_ends_a_stream(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    monkeypatch.setattr(publish_door, "IDLE_S", 0.2)
    with stage.channel() as channel:
        talk = Talk(channel)
        talk.say(one())
        with pytest.raises(grpc.RpcError, match="CANCELLED"):
            next(talk.call)
        eventually(lambda: stage.door.open_streams() == 0)


def test_a_client_that_reads_no_answers_holds_up_nobody_and_is_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    monkeypatch.setattr(publish_door, "STALL_S", 0.5)
    refused = [{"index": n, "reason": "older", "detail": "x" * 100} for n in range(1_000)]
    long = json.dumps({"accepted": 0, "rejected": refused}).encode()
    monkeypatch.setattr(Host, "publish_as", lambda *_: long)
    with stage.channel() as channel, stage.channel() as second:
        flood = calling(channel, itertools.repeat(one()), timeout=60)
        eventually(lambda: stage.door.open_streams() == 1)
        assert len(publish(second, one(), one())) == 2
        eventually(lambda: stage.door.open_streams() == 0)
        with pytest.raises(grpc.RpcError, match="CANCELLED"):
            for _ in flood:
                pass


def test_a_slow_write_is_no_silence(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_door, "IDLE_S", 0.2)
    monkeypatch.setattr(publish_door, "STALL_S", 0.2)
    stage.host.go.clear()
    with stage.channel() as channel:
        talk = Talk(channel)
        talk.send(one())
        assert stage.host.entered.wait(TIMEOUT_S)
        time.sleep(1.5)
        stage.host.go.set()
        assert publish_proto.response(next(talk.call))["accepted"] == 1


def test_a_stop_answers_what_is_being_written_and_ends_the_rest(stage: Stage) -> None:
    with stage.channel() as channel, stage.channel() as second:
        idle, busy = Talk(channel), Talk(second)
        idle.say(one())
        stage.host.go.clear()
        stage.host.entered.clear()
        busy.send(one())
        assert stage.host.entered.wait(TIMEOUT_S)
        stopping = threading.Thread(target=stage.door.stop, args=(5.0,))
        stopping.start()
        with pytest.raises(grpc.RpcError, match=r"CANCELLED|UNAVAILABLE"):
            next(idle.call)
        assert stopping.is_alive()
        stage.host.go.set()
        assert publish_proto.response(next(busy.call))["accepted"] == 1
        with pytest.raises(grpc.RpcError, match=r"CANCELLED|UNAVAILABLE"):
            next(busy.call)
        stopping.join(TIMEOUT_S)
        assert not stopping.is_alive()
    assert not stage.door.serving
    stage.door.stop(0.1)


def test_a_port_in_use_is_one_sentence(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    folder = stage.folder
    files = Certificates(Files(folder / "cert.pem", folder / "key.pem", folder / "ca.pem"))
    with pytest.raises(ServerError, match=r"^the address `127\.0\.0\.1:\d+` is in use$"):
        PublishDoor(stage.host, stage.door.address, files)
    assert capfd.readouterr().err == ""


def test_strangers_connections_are_bounded_and_hold_up_nobody(stage: Stage) -> None:
    with stage.channel() as channel:
        assert publish(channel, one())[0]["accepted"] == 1
        place = ("127.0.0.1", stage.door.address.port)
        with contextlib.ExitStack() as idle:
            for _ in range(publish_door.MAX_CONNECTIONS + 50):
                idle.enter_context(socket.create_connection(place, TIMEOUT_S))
            assert publish(channel, one())[0]["accepted"] == 1
    with stage.channel() as channel:
        assert publish(channel, one())[0]["accepted"] == 1


def test_threads_are_enough_for_every_stream() -> None:
    assert MAX_PUBLISHER_STREAMS < MAX_STREAMS


# ---- the published file -------------------------------------------------------------------------------------


def test_the_published_proto_says_what_the_server_reads() -> None:
    text = (ROOT / "docs/proto/signalwarden/v1/signals.proto").read_text()
    bare = re.sub(r"//[^\n]*", "", text)
    assert "package signalwarden.v1;" in bare
    [(service, method, asked, answered)] = re.findall(
        r"service (\w+) \{\s*rpc (\w+)\(stream (\w+)\) returns \(stream (\w+)\);\s*\}", bare
    )
    assert f"/signalwarden.v1.{service}/{method}" == PUBLISH_METHOD
    assert (asked, answered) == ("PublishRequest", "PublishResponse")
    found: dict[str, list[tuple[str, str, int, bool, bool]]] = {}
    for name, body in re.findall(r"message (\w+) \{(.*?)\n\}", bare, re.DOTALL):
        oneof = re.search(r"oneof value \{(.*?)\}", body, re.DOTALL)
        inside = oneof.group(1) if oneof else ""
        found[name] = [
            (field, kind, int(number), bool(repeated), f" {field} =" in inside)
            for repeated, kind, field, number in re.findall(r"(repeated )?([\w.]+) (\w+) = (\d+);", body)
        ]
    assert found == publish_proto.FIELDS
