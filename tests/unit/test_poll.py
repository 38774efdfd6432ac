"""`poll`: what a file or an endpoint says reaches the core, what it fails to say changes nothing."""

from __future__ import annotations

import http.server
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from signalwarden.errors import BadInputError, FeedError, StateError
from signalwarden.signals import document
from signalwarden.signals.document import read_document
from signalwarden.signals.poll import FIRST_RETRY_S, SHORTEST_PAUSE_S, PollSettings, PollSource
from tests.conftest import Eventually
from tests.endpoint import Endpoint, serving

NOW_S = 1_800_000_000.0
STAMP = "2027-01-15T08:00:00.000000Z"
AT = "2027-01-15T07:59:00Z"
TOKEN = "s3cr3t-t0ken"

Entry = dict[str, Any]


def entry(value: object = True, subject: str = "a", at: str | None = AT) -> Entry:
    known: Entry = {"name": "device_ok", "subject": subject, "value": value}
    return known if at is None else known | {"observed_at": at}


def doc(*entries: Any) -> bytes:
    return json.dumps({"signals": list(entries)}).encode()


# ---- the document -----------------------------------------------------------------------------------------


def bodies(content: bytes) -> list[list[Any]]:
    return [json.loads(batch.body)["signals"] for batch in read_document(content, STAMP).batches]


def test_entries_are_handed_on_letter_by_letter() -> None:
    written = b'{ "name":"a\\u00e9", "name": "b", "value":1.10e2 ,"observed_at":"x", "big": 123456789012345678901234567890}'
    (batch,) = read_document(b' { "signals" : [\n' + written + b" , 3]\t}\n", STAMP).batches
    assert batch.body == b'{"signals":[' + written + b",3]}"
    assert (batch.first, batch.entries) == (0, 2)


def test_an_entry_without_a_time_bears_that_of_the_fetch() -> None:
    content = doc(entry(at=None), entry(), entry(at="nonsense"), {}, 3, entry(at=None))
    read = read_document(content, STAMP)
    (found,) = bodies(content)
    assert read.stamped == 2
    assert [e.get("observed_at") if isinstance(e, dict) else e for e in found] == [
        STAMP,
        AT,
        "nonsense",
        None,
        3,
        STAMP,
    ]
    assert found[0] == entry(at=STAMP)


def test_a_long_document_is_cut_into_batches_in_order() -> None:
    found = bodies(doc(*(entry(n) for n in range(2_500))))
    assert [len(batch) for batch in found] == [1_000, 1_000, 500]
    assert [e["value"] for batch in found for e in batch] == list(range(2_500))
    assert [b.first for b in read_document(doc(*range(2_500)), STAMP).batches] == [0, 1_000, 2_000]


def test_a_batch_of_large_entries_stays_within_the_bytes_of_a_publication() -> None:
    found = read_document(doc(*(entry("é" * 5_000) for _ in range(300))), STAMP).batches
    assert len(found) > 1
    assert all(len(batch.body) <= document.BATCH_BYTES for batch in found)
    assert sum(batch.entries for batch in found) == 300


def test_an_entry_of_endless_length_keeps_its_index_and_nothing_else() -> None:
    (found,) = bodies(doc(entry(1), entry("x" * 70_000), entry(3)))
    assert [e and e["value"] for e in found] == [1, None, 3]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "not UTF-8"),
        (b'\xef\xbb\xbf{"signals":[]}', "another shape"),
        (b"[]", "another shape"),
        (b'{"signal":[]}', "another shape"),
        (b'{"signals":{}}', "another shape"),
        (b'{"version":1,"signals":[]}', "another shape"),
        (b'{"signals":[]} x', "goes on"),
        (b'{"signals":[],"signals":[]}', "goes on"),
        (b'{"signals":[1,]}', "entry 1"),
        (b'{"signals":[,1]}', "entry 0"),
        (b'{"signals":[1 2]}', "entry 1"),
        (b'{"signals":[{"a":NaN}]}', "entry 0"),
        (b'{"signals":[-Infinity]}', "entry 0"),
        (b"{\"signals\":['a']}", "entry 0"),
        (b'{"signals":[' + b"[" * 200_000, "entry 0"),
        (b'{"signals":[' + b"9" * 10_000 + b"]}", "entry 0"),
        (b'{"signals":[1, 2', "entry 2"),
    ],
)
def test_what_is_no_document_is_one_sentence(content: bytes, text: str) -> None:
    with pytest.raises(FeedError, match=text):
        read_document(content, STAMP)


def test_every_half_of_a_document_is_refused_whole() -> None:
    whole = doc(entry(), entry(at=None))
    for end in range(len(whole) - 1):
        with pytest.raises(FeedError):
            read_document(whole[:end], STAMP)
    assert read_document(whole, STAMP).batches


def test_the_bounds_of_a_document_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_DOCUMENT_SIGNALS", 3)
    assert read_document(doc(1, 2, 3), STAMP).batches
    with pytest.raises(FeedError, match="more than 3 signals"):
        read_document(doc(1, 2, 3, 4), STAMP)
    monkeypatch.setattr(document, "MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(FeedError, match="more than 10 bytes"):
        read_document(doc(1), STAMP)


def test_an_error_never_repeats_what_stands_in_the_document() -> None:
    for content in (b"hidden", b'{"signals":[{"value":hidden}]}', b'{"signals":[]}hidden'):
        with pytest.raises(FeedError) as caught:
            read_document(content, STAMP)
        assert "hidden" not in str(caught.value)


# ---- a stage for polls ------------------------------------------------------------------------------------


@dataclass
class Door:
    """Takes what a source carries, and answers as it is told."""

    bodies: list[list[Any]] = field(default_factory=list)
    origins: set[str] = field(default_factory=set)
    rejected: list[Entry] = field(default_factory=list)
    error: Exception | None = None

    def publish(self, body: bytes, origin: str) -> bytes:
        if self.error is not None:
            raise self.error
        entries = json.loads(body)["signals"]
        self.bodies.append(entries)
        self.origins.add(origin)
        return json.dumps({"accepted": len(entries), "rejected": self.rejected}).encode()


@dataclass
class Stage:
    """A source over a real file or endpoint, on a clock that only the test moves."""

    door: Door
    source: PollSource
    now: list[float]

    def step(self) -> float:
        return self.source.step()

    @property
    def error(self) -> str:
        return self.source.status().last_error or ""


def settings(root: Path, **changed: Any) -> PollSettings:
    usual = PollSettings(
        feed="posture",
        root=root,
        file="feeds/posture.json",
        url=None,
        interval_s=30.0,
        timeout_s=5.0,
        jitter_s=3.0,
        backoff_s=300.0,
    )
    return replace(usual, **changed)


def staged(given: PollSettings, uniform: Callable[[float, float], float] = max) -> Stage:
    door, now = Door(), [NOW_S]
    source = PollSource(given, door.publish, clock=lambda: now[0], monotonic=lambda: now[0], uniform=uniform)
    return Stage(door, source, now)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "conf/feeds").mkdir(parents=True)
    return tmp_path / "conf"


def write(root: Path, content: bytes, name: str = "feeds/posture.json") -> None:
    """As a good writer does: a new file, renamed over the old."""
    fresh = root / f"{name}.new"
    fresh.write_bytes(content)
    fresh.rename(root / name)


# ---- a file -----------------------------------------------------------------------------------------------


def test_what_the_file_says_is_carried_under_the_name_of_the_feed(root: Path) -> None:
    write(root, doc(entry(), entry(False, "b")))
    stage = staged(settings(root))
    assert stage.step() == 33.0  # the interval and the most that jitter may add
    assert stage.door.bodies == [[entry(), entry(False, "b")]]
    assert stage.door.origins == {"poll:posture"}
    status = stage.source.status()
    assert (status.batches, status.last_success, status.last_error, status.failures) == (1, NOW_S, None, 0)


def test_an_unchanged_file_is_not_carried_again_and_is_a_success(root: Path) -> None:
    write(root, doc(entry()))
    stage = staged(settings(root))
    stage.step()
    stage.now[0] += 30
    write(root, doc(entry()))
    stage.step()
    assert len(stage.door.bodies) == 1
    assert stage.source.status().last_success == NOW_S + 30
    write(root, doc(entry(False)))
    stage.step()
    assert stage.door.bodies[1:] == [[entry(False)]]


def test_a_file_without_times_is_a_new_observation_at_each_poll(root: Path) -> None:
    write(root, doc(entry(at=None)))
    stage = staged(settings(root))
    stage.step()
    stage.now[0] += 60
    stage.step()
    assert [batch[0]["observed_at"] for batch in stage.door.bodies] == [
        STAMP,
        "2027-01-15T08:01:00.000000Z",
    ]


def test_half_a_file_changes_nothing_and_is_read_again_soon(root: Path) -> None:
    whole = doc(entry())
    (root / "feeds/posture.json").write_bytes(whole[:20])
    stage = staged(settings(root))
    assert stage.step() == FIRST_RETRY_S
    assert "cut off, at entry 0" in stage.error
    assert stage.door.bodies == []
    (root / "feeds/posture.json").write_bytes(whole)
    assert stage.step() == 33.0
    assert (stage.error, len(stage.door.bodies)) == ("", 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("feeds/missing.json", "`feeds/missing.json` can't be read: no such file or directory"),
        ("feeds", "regular file|is a directory"),
        ("feeds/pipe", "expected a regular file"),
        ("../outside.json", "leads out of the directory"),
        ("feeds/link.json", "leads out of the directory"),
    ],
)
def test_what_is_no_file_of_the_directory_is_not_read(root: Path, name: str, text: str) -> None:
    (root.parent / "outside.json").write_bytes(doc(entry()))
    os.mkfifo(root / "feeds/pipe")
    (root / "feeds/link.json").symlink_to("../../outside.json")
    stage = staged(settings(root, file=name))
    started = time.monotonic()
    stage.step()
    assert time.monotonic() - started < 5
    assert stage.door.bodies == []
    assert re.search(text, stage.error), stage.error


def test_an_absolute_path_and_a_link_inside_the_directory_are_read(root: Path) -> None:
    (root.parent / "outside.json").write_bytes(doc(entry(1)))
    write(root, doc(entry(2)), "feeds/..data.json")
    (root / "feeds/posture.json").symlink_to("..data.json")
    for name, value in ((str(root.parent / "outside.json"), 1), ("feeds/posture.json", 2)):
        stage = staged(settings(root, file=name))
        stage.step()
        assert stage.door.bodies == [[entry(value)]], stage.error


# ---- pace -------------------------------------------------------------------------------------------------


def test_failures_wait_longer_and_longer_up_to_the_backoff_and_success_resets(root: Path) -> None:
    stage = staged(settings(root, backoff_s=10.0))
    assert [stage.step() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert stage.source.status().failures == 6
    write(root, doc(entry()))
    assert stage.step() == 33.0
    (root / "feeds/posture.json").unlink()
    assert stage.step() == 1


def test_a_thousand_failures_do_not_overflow(root: Path) -> None:
    stage = staged(settings(root, backoff_s=864_000.0))
    pauses = [stage.step() for _ in range(1_200)]
    assert max(pauses) == 864_000.0


def test_jitter_spreads_polls_and_retries(root: Path) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    stage = staged(settings(root), uniform)
    assert stage.step() == 0.5
    write(root, doc(entry()))
    assert stage.step() == 30.0
    assert asked == [(0.5, 1.0), (0.0, 3.0)]


@pytest.mark.parametrize(("took", "pause"), [(10.0, 20.0), (40.0, SHORTEST_PAUSE_S)])
def test_the_time_that_a_poll_took_is_part_of_the_interval(root: Path, took: float, pause: float) -> None:
    write(root, doc(entry()))
    stage = staged(settings(root, jitter_s=0.0))

    def slow(body: bytes, origin: str) -> bytes:
        stage.now[0] += took
        return stage.door.publish(body, origin)

    stage.source._publish = slow
    assert stage.step() == pause


# ---- what the core says -----------------------------------------------------------------------------------


def test_refused_entries_are_said_once_by_index_and_never_by_value(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(root, doc(*(entry("hidden", f"s{n}", None) for n in range(1_010))))
    stage = staged(settings(root))
    stage.door.rejected = [
        {"index": n, "reason": "wrong_type", "detail": "found `hidden`"} for n in (1, 2, 3)
    ] + [{"index": 4, "reason": "unknown_signal", "detail": "hidden"}]
    stage.step()
    stage.step()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        "feed `posture`: entries were refused: 2 with `unknown_signal` (entries 4, 1004); "
        "6 with `wrong_type` (entries 1, 2, 3, 1001, 1002, …)"
    )
    assert (stage.error, stage.source.status().refused) == ("", 8)
    stage.door.rejected = []
    stage.step()
    assert stage.source.status().refused == 0


@pytest.mark.parametrize(("reason", "times"), [("wrong_type", 1), ("older", 1), ("future", 3), ("news", 3)])
def test_a_document_is_carried_again_while_a_refusal_may_pass(root: Path, reason: str, times: int) -> None:
    write(root, doc(entry()))
    stage = staged(settings(root))
    stage.door.rejected = [{"index": 0, "reason": reason, "detail": ""}]
    for _ in range(3):
        stage.step()
    assert len(stage.door.bodies) == times


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StateError("the state `x` can't be written: disk full"), "disk full"),
        (BadInputError("the body is not JSON"), "not JSON"),
        (RuntimeError("hidden"), "a fault of ours: RuntimeError"),
    ],
)
def test_what_cannot_be_kept_is_carried_again(root: Path, error: Exception, text: str) -> None:
    write(root, doc(entry()))
    stage = staged(settings(root))
    stage.door.error = error
    assert stage.step() == FIRST_RETRY_S
    assert text in stage.error
    assert "hidden" not in stage.error
    stage.door.error = None
    stage.step()
    assert stage.door.bodies == [[entry()]]


def test_a_fault_is_said_once_for_as_long_as_it_stays(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = staged(settings(root))
    for _ in range(5):
        stage.step()
    assert len([r for r in caplog.records if "failed" in r.getMessage()]) == 1


# ---- an endpoint ------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as made:
        yield made


def over_http(root: Path, endpoint: Endpoint, **changed: Any) -> Stage:
    return staged(settings(root, file=None, url=endpoint.url, **changed))


def test_an_endpoint_is_read_like_a_file(root: Path, endpoint: Endpoint) -> None:
    endpoint.body = doc(entry())
    stage = over_http(root, endpoint)
    assert stage.step() == 33.0
    assert stage.step() == 33.0
    assert stage.door.bodies == [[entry()]]
    assert endpoint.asked[0]["accept"] == "application/json"
    assert "authorization" not in endpoint.asked[0]


def test_an_endpoint_is_asked_whether_anything_changed(root: Path, endpoint: Endpoint) -> None:
    endpoint.body, endpoint.headers = doc(entry()), {"ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024"}
    stage = over_http(root, endpoint)
    for _ in range(3):
        assert stage.step() == 33.0
    assert stage.door.bodies == [[entry()]]
    assert "if-none-match" not in endpoint.asked[0]
    assert endpoint.asked[2]["if-none-match"] == '"1"'
    assert endpoint.asked[2]["if-modified-since"] == "Mon, 01 Jan 2024"
    endpoint.body, endpoint.headers = doc(entry(False)), {"ETag": '"2"'}
    stage.step()
    assert stage.door.bodies[1:] == [[entry(False)]]


def test_a_document_without_times_is_always_asked_for_whole(root: Path, endpoint: Endpoint) -> None:
    endpoint.body, endpoint.headers = doc(entry(at=None)), {"ETag": '"1"'}
    stage = over_http(root, endpoint)
    stage.step()
    stage.step()
    assert all("if-none-match" not in asked for asked in endpoint.asked)
    assert len(stage.door.bodies) == 2


def test_a_document_that_was_not_kept_is_asked_for_whole(root: Path, endpoint: Endpoint) -> None:
    endpoint.body, endpoint.headers = doc(entry()), {"ETag": '"1"'}
    stage = over_http(root, endpoint)
    stage.door.error = StateError("no")
    stage.step()
    stage.door.error = None
    stage.step()
    assert "if-none-match" not in endpoint.asked[1]
    assert stage.door.bodies == [[entry()]]


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500, 503])
def test_any_other_status_is_a_failed_poll(root: Path, endpoint: Endpoint, status: int) -> None:
    endpoint.status, endpoint.headers = status, {"X-Hidden": "hidden"}
    stage = over_http(root, endpoint)
    assert stage.step() == FIRST_RETRY_S
    assert stage.error == f"the endpoint answered with status {status}, expected 200"


@pytest.mark.parametrize(("said", "pause"), [("7", 7), ("100000", 300), ("soon", 1), ("-5", 1), ("²", 1)])
def test_an_endpoint_may_ask_for_patience_up_to_the_backoff(
    root: Path, endpoint: Endpoint, said: str, pause: float
) -> None:
    endpoint.status, endpoint.headers = 503, {"Retry-After": said}
    for uniform in (max, min) if pause > 1 else (max,):
        stage = staged(settings(root, file=None, url=endpoint.url), uniform)
        assert stage.step() == pause


def test_the_token_is_read_at_each_poll_and_never_said(
    root: Path, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.body, endpoint.status = doc(entry()), 401
    stage = over_http(root, endpoint, token_file="feeds/token")
    stage.step()
    assert "the token file" in stage.error
    for token in (TOKEN, f"{TOKEN}-2"):
        (root / "feeds/token").write_text(token + "\n")
        stage.step()
    assert [asked["authorization"] for asked in endpoint.asked] == [f"Bearer {TOKEN}", f"Bearer {TOKEN}-2"]
    assert TOKEN not in stage.error
    assert TOKEN not in caplog.text


def test_an_endpoint_that_is_gone_fails_and_comes_back(root: Path) -> None:
    with serving() as endpoint:
        endpoint.body = doc(entry(at=None))
        stage = over_http(root, endpoint)
        stage.step()
    stage.step()
    assert "connection refused" in stage.error
    assert len(stage.door.bodies) == 1


# ---- life -------------------------------------------------------------------------------------------------


def test_a_source_polls_by_itself_until_it_is_stopped(root: Path, eventually: Eventually) -> None:
    write(root, doc(entry(at=None)))
    door = Door()
    source = PollSource(settings(root, interval_s=0.01, jitter_s=0.0), door.publish)
    assert not source.status().running
    source.start()
    source.start()
    eventually(lambda: len(door.bodies) >= 3)
    assert source.status().running
    source.stop()
    source.stop()
    carried = len(door.bodies)
    time.sleep(3 * SHORTEST_PAUSE_S)
    assert len(door.bodies) == carried
    assert not source.status().running
    source.start()
    eventually(lambda: len(door.bodies) > carried)
    source.stop()


def test_a_stop_does_not_wait_for_a_server_that_is_slow_and_nothing_is_carried_after_it(
    root: Path, eventually: Eventually
) -> None:
    reached, release = threading.Event(), threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.set()
            release.wait(10)
            body = doc(entry())
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    door = Door()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    source = PollSource(settings(root, file=None, url=url, timeout_s=20.0), door.publish)
    source.start()
    assert reached.wait(10)
    started = time.monotonic()
    source.stop()
    assert time.monotonic() - started < 2
    release.set()
    server.shutdown()
    server.server_close()
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "poll-posture"])
    assert door.bodies == []
    assert source.status().last_error is None
