"""`feeds`: what runs is what the register says, and a feed that fails harms nothing but itself."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from signalwarden.errors import FeedError
from signalwarden.outbound import fetching
from signalwarden.signals import Feed, Seams, Source, Status, document
from signalwarden.signals.feeds import KINDS, MAX_FEEDS, Feeds, described_feeds
from signalwarden.signals.poll import PollSource
from tests.conftest import Eventually
from tests.pages import section, table, text_of

AT = "2027-01-15T07:59:00Z"
SPANS = {"interval_ms": 30_000, "timeout_ms": 5_000, "jitter_ms": 3_000, "backoff_ms": 300_000}


def feed(name: str, kind: str = "fake", line: int = 1, **settings: Any) -> dict[str, Any]:
    return {"feed": name, "kind": kind, "line": line, **settings}


def poll(name: str, line: int = 1, **settings: Any) -> dict[str, Any]:
    return feed(name, "poll", line, **{"file": f"feeds/{name}.json", "url": None, **SPANS, **settings})


def contract(name: str, *feeds: str, line: int = 1, **more: Any) -> dict[str, Any]:
    sources = [{"kind": "fake", "feed": feed, "line": line} for feed in feeds]
    return {"name": name, "line": line, "sources": [*sources, {"kind": "push", "publisher": "x"}], **more}


def described(feeds: list[dict[str, Any]], *signals: dict[str, Any]) -> dict[str, Any]:
    return {"feeds": feeds, "signals": list(signals)}


@dataclass
class FakeSource:
    """Counts its starts and stops."""

    settings: Any
    kind: str = "fake"
    starts: int = 0
    stops: int = 0

    def start(self) -> None:
        if self.settings[1].get("bad") == "start":
            raise RuntimeError("hidden")
        self.starts += 1

    def stop(self) -> None:
        self.stops += 1
        if self.settings[1].get("bad") == "stop":
            raise RuntimeError("hidden")

    def status(self) -> Status:
        return Status(self.starts > self.stops, 7, None, None)


@dataclass
class FakeKind:
    """Makes fake sources; some feeds can't be read."""

    word: str = "fake"
    made: list[FakeSource] = field(default_factory=list)

    def read(self, feed: Feed, root: Path) -> Any:
        match feed.settings.get("bad"):
            case "sentence":
                raise FeedError("expected a URL")
            case "shape":
                raise KeyError("hidden")
        return feed.name, dict(feed.settings), feed.signals

    def build(self, settings: Any, seams: Seams) -> Source:
        self.made.append(FakeSource(settings))
        return self.made[-1]

    def running(self) -> list[str]:
        return [source.settings[0] for source in self.made if source.starts > source.stops]


def no_door(body: bytes, origin: str) -> bytes:
    raise AssertionError


@pytest.fixture
def fake() -> FakeKind:
    return FakeKind()


@pytest.fixture
def feeds(fake: FakeKind, tmp_path: Path) -> Iterator[Feeds]:
    made = Feeds(Seams(tmp_path, no_door, lambda: 0.0), [fake, *KINDS])
    yield made
    made.stop()


def test_a_description_is_read_with_the_contracts_that_each_feed_serves() -> None:
    told = described(
        [feed("a", x=1), feed("b")], contract("z", "a", "b"), contract("y", "a", "a"), contract("x")
    )
    a, b = described_feeds(told)
    assert (a.name, a.kind, a.settings) == ("a", "fake", {"x": 1})
    assert [c["name"] for c in a.signals] == ["y", "z"]
    assert [c["name"] for c in b.signals] == ["z"]
    assert "line" not in json.dumps([*a.signals])
    assert described_feeds({"signals": []}) == []


def test_feeds_are_started_exchanged_and_stopped_as_the_register_says(feeds: Feeds, fake: FakeKind) -> None:
    feeds.adopt(described([feed("a"), feed("b", x=1), feed("c")]))
    assert fake.running() == ["a", "b", "c"]
    a = feeds.source("a")
    feeds.adopt(described([feed("d"), feed("a", line=9), feed("b", x=2)]))
    assert sorted(fake.running()) == ["a", "b", "d"]
    assert feeds.source("a") is a
    assert feeds.source("c") is None
    assert [(s.settings[0], s.starts, s.stops) for s in fake.made] == [
        ("a", 1, 0),
        ("b", 1, 1),
        ("c", 1, 1),
        ("d", 1, 0),
        ("b", 1, 0),
    ]
    feeds.adopt(described([]))
    assert fake.running() == []
    assert feeds.statuses() == {}


def test_a_feed_is_read_anew_for_a_contract_that_came_or_changed_and_not_for_a_moved_line(
    feeds: Feeds, fake: FakeKind
) -> None:
    feeds.adopt(described([feed("a")], contract("x", "a")))
    feeds.adopt(described([feed("a")], contract("x", "a", line=5), contract("y", "b")))
    assert len(fake.made) == 1
    feeds.adopt(described([feed("a")], contract("x", "a"), contract("y", "a")))
    assert len(fake.made) == 2
    feeds.adopt(described([feed("a")], contract("x", "a", max_age_ms=1), contract("y", "a")))
    assert (len(fake.made), fake.running()) == (3, ["a"])


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (feed("bad", bad="sentence"), "expected a URL"),
        (feed("bad", bad="shape"), "it can't be read: KeyError"),
        (feed("bad", bad="start"), "it can't be started: RuntimeError"),
        (feed("bad", "later"), "feeds of kind `later` are not built yet"),
        (feed("bad", "poll"), "it can't be read: KeyError"),
        (
            poll("bad", file=None, url="https://u:p@feed.example/"),
            "a URL holds no user or password, expected a token file",
        ),
    ],
)
def test_a_feed_that_cannot_run_says_so_and_the_others_run(
    feeds: Feeds, fake: FakeKind, bad: dict[str, Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    feeds.adopt(described([bad, feed("good")]))
    assert fake.running() == ["good"]
    status = feeds.statuses()["bad"]
    assert (status.running, status.last_error) == (False, text)
    assert f"feed `bad` does not run: {text}" in caplog.text
    assert "hidden" not in caplog.text
    assert "Traceback" not in caplog.text
    assert feeds.source("bad") is None
    feeds.adopt(described([feed("bad"), feed("good")]))
    assert fake.running() == ["good", "bad"]


def test_a_feed_that_does_not_stop_leaves_none_behind(feeds: Feeds, fake: FakeKind) -> None:
    feeds.adopt(described([feed("a", bad="stop"), feed("b")]))
    feeds.adopt(described([feed("c")]))
    assert [source.stops for source in fake.made] == [1, 1, 0]
    feeds.stop()
    feeds.stop()
    assert fake.running() == []


def test_nothing_starts_after_the_end(feeds: Feeds, fake: FakeKind) -> None:
    feeds.stop()
    feeds.adopt(described([feed("a")]))
    assert fake.made == []


def test_the_number_of_feeds_has_an_end(feeds: Feeds, fake: FakeKind) -> None:
    feeds.adopt(described([feed(f"f{n:03}") for n in range(MAX_FEEDS + 2)]))
    assert len(fake.running()) == MAX_FEEDS
    refused = [name for name, status in feeds.statuses().items() if not status.running]
    assert refused == ["f064", "f065"]


def test_a_poll_feed_of_the_register_carries_what_its_file_says(
    tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "feeds").mkdir()
    carried: list[tuple[bytes, str]] = []

    def publish(body: bytes, origin: str) -> bytes:
        carried.append((body, origin))
        return b'{"accepted":1,"rejected":[]}'

    feeds = Feeds(Seams(tmp_path, publish, lambda: 0.0))
    try:
        feeds.adopt(described([poll("a"), poll("b")]))
        (tmp_path / "feeds/a.json").write_text(f'{{"signals":[{{"observed_at":"{AT}"}}]}}')
        eventually(lambda: carried)
        eventually(lambda: feeds.statuses()["a"].last_error is None)
        assert carried == [(f'{{"signals":[{{"observed_at":"{AT}"}}]}}'.encode(), "poll:a")]
        eventually(lambda: "no such file" in (feeds.statuses()["b"].last_error or ""))
        running = feeds.source("a")
        assert isinstance(running, PollSource)
        feeds.adopt(described([poll("a"), poll("b", interval_ms=1_000)], contract("x", "a")))
        eventually(lambda: len(carried) == 2)
        assert feeds.source("a") is not running
    finally:
        feeds.stop()
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("poll-")])


# ---- the page -------------------------------------------------------------------------------------------


def test_every_key_of_a_poll_feed_has_its_line() -> None:
    rust = text_of("rust_core/core/src/signals/feeds.rs")
    body = "".join(rust.split(f"fn {name}(")[1].split("\n    fn ")[0] for name in ("poll", "endpoint"))
    known = {"kind", *re.findall(r'\.(?:span|path|url)\("(\w+)"', body)}
    shown = table(section(text_of("docs/feeds.md"), "## A poll feed"))
    assert {key.strip("` ") for cell in shown for key in cell.split(",")} == known


def test_the_bounds_of_feeds_are_as_their_page_says() -> None:
    page = text_of("docs/feeds.md")
    assert f"at most {document.MAX_DOCUMENT_SIGNALS:,} signals" in page
    assert (
        f"{document.MAX_DOCUMENT_BYTES >> 20} MiB, and is taken in batches of {document.BATCH_SIGNALS:,}"
        in page
    )
    assert f"At most {MAX_FEEDS} feeds run" in page
    assert f"a thread of at most {fetching.MAX_LOOKUPS}" in page
    assert f"MAX_FEEDS: usize = {MAX_FEEDS};" in text_of("rust_core/core/src/limits.rs")
