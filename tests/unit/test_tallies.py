"""Counts of signals, publishers and streams as Prometheus sees them: names, sums and bounds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from signalwarden import _core, config, families, request_json, starter, tallies
from signalwarden.metrics import Metrics

NOW_US: Final = 1_795_514_400_000_000
NOW: Final = datetime.fromtimestamp(NOW_US / 1e6, UTC)


def exposed(told: tallies.Tallies) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples by name and labels, read back by Prometheus' own parser."""
    text, _ = Metrics(dict, lambda: None, lambda: told).text()
    return {
        (sample.name.removeprefix(families.PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def of(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def signal(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "states": {"fresh": 3, "stale": 1}, "rejected": {"older": 2}, "age_buckets": [[0.5, 1], [5, 3]],
            "age_count": 4, "age_sum": 20.5, **more}  # fmt: skip


def test_a_signal_has_its_states_ages_and_refusals() -> None:
    seen = exposed(tallies.Tallies(signals=[signal("posture")]))
    assert seen["signal_states_total", of(signal="posture", state="fresh")] == 3
    assert seen["signal_rejected_total", of(signal="posture", reason="older")] == 2
    bucket = "signal_age_seconds_bucket"
    assert [seen[bucket, of(signal="posture", le=le)] for le in ("0.5", "5.0", "+Inf")] == [1, 3, 4]
    assert seen["signal_age_seconds_count", of(signal="posture")] == 4
    assert seen["signal_age_seconds_sum", of(signal="posture")] == 20.5


def test_a_publisher_has_its_last_batch_and_what_became_of_its_values() -> None:
    who = "spiffe://prod.example/a"
    told = {"publisher": who, "last_seen": "2026-11-24T10:00:00Z", "accepted": 5, "rejected": {"future": 1}}
    more = {**told, "publisher": "poll:file", "last_seen": None}
    seen = exposed(tallies.Tallies(publishers=[told, more], named=frozenset({who, "poll:file"})))
    assert seen["publisher_last_seen_timestamp_seconds", of(publisher=who)] == NOW_US / 1e6
    assert seen["publisher_last_seen_timestamp_seconds", of(publisher="poll:file")] == 0
    assert seen["publisher_accepted_total", of(publisher=who)] == 5
    assert seen["publisher_rejected_total", of(publisher=who, reason="future")] == 1


def test_a_stream_has_its_last_word_and_whether_it_is_whole() -> None:
    feeds: list[dict[str, Any]] = [{"feed": "idp", "verified_at": "2026-11-24T10:00:00Z", "in_sync": True}, {"feed": "new", "verified_at": None, "in_sync": False}]  # fmt: skip
    seen = exposed(tallies.Tallies(feeds=feeds))
    assert seen["feed_verified_timestamp_seconds", of(feed="idp")] == NOW_US / 1e6
    assert (seen["feed_in_sync", of(feed="idp")], seen["feed_in_sync", of(feed="new")]) == (1, 0)


def route(label: str, action: str = "page.read", **reasons: int) -> dict[str, Any]:
    return {"route": label, "action": action, "reasons": reasons}


def test_a_route_has_its_decisions_by_outcome_and_reason() -> None:
    told = [route("routes.yaml:2", allowed=3, policy_denied=1), route("", "", route_unknown=2), route("", "task.begin", allowed=1)]  # fmt: skip
    seen = exposed(tallies.Tallies(routes=told))
    name, at = "route_decisions_total", {"route": "routes.yaml:2", "action": "page.read"}
    assert seen[name, of(**at, outcome="allow", reason="allowed")] == 3
    assert seen[name, of(**at, outcome="deny", reason="policy_denied")] == 1
    assert seen[name, of(route="_none", action="_none", outcome="deny", reason="route_unknown")] == 2
    assert seen[name, of(route="_none", action="task.begin", outcome="allow", reason="allowed")] == 1


def test_more_routes_than_there_may_be_labels_are_summed_and_none_is_lost() -> None:
    many = [route(f"routes.yaml:{number:05}", allowed=2) for number in range(families.MAX_LABELLED + 250)]
    seen = exposed(tallies.Tallies(routes=many))
    other = of(route=families.OTHER, action=families.OTHER, outcome="allow", reason="allowed")
    assert seen["route_decisions_total", other] == 500
    assert sum(n for (name, _), n in seen.items() if name == "route_decisions_total") == 2 * len(many)


def test_a_stage_has_its_times() -> None:
    told = {"stage": "total", "buckets": [[0.000005, 1], [0.00001, 4]], "count": 5, "sum": 0.5}
    seen = exposed(tallies.Tallies(stages=[told]))
    bucket = "decision_duration_seconds_bucket"
    assert [seen[bucket, of(stage="total", le=le)] for le in ("5e-06", "1e-05", "+Inf")] == [1, 4, 5]
    assert seen["decision_duration_seconds_sum", of(stage="total")] == 0.5


def test_more_signals_than_there_may_be_labels_are_summed_and_none_is_lost() -> None:
    many = [signal(f"s{number:05}") for number in range(families.MAX_LABELLED + 250)]
    seen = exposed(tallies.Tallies(signals=many))
    names = {dict(labels)["signal"] for _, labels in seen if "signal" in dict(labels)}
    assert len(names) == families.MAX_LABELLED + 1
    assert seen["signal_states_total", of(signal=families.OTHER, state="fresh")] == 3 * 250
    assert seen["signal_age_seconds_bucket", of(signal=families.OTHER, le="5.0")] == 3 * 250
    assert seen["signal_age_seconds_count", of(signal=families.OTHER)] == 4 * 250
    assert "s00999" in names
    assert "s01000" not in names


def test_the_latest_word_of_the_summed_publishers_counts() -> None:
    many = [
        {
            "publisher": f"spiffe://prod.example/{n:05}",
            "last_seen": f"2026-11-24T{n % 10:02}:00:00Z",
            "accepted": 1,
        }
        for n in range(families.MAX_LABELLED + 20)
    ]
    named = frozenset(str(entry["publisher"]) for entry in many)
    seen = exposed(tallies.Tallies(publishers=many, named=named))
    assert seen["publisher_last_seen_timestamp_seconds", of(publisher=families.OTHER)] == NOW_US / 1e6 - 3600
    assert seen["publisher_accepted_total", of(publisher=families.OTHER)] == 20


def test_every_family_is_there_without_samples_too() -> None:
    text, _ = Metrics(dict, lambda: None, tallies.Tallies).text()
    for name in families.LABELLED:
        assert f"# TYPE {families.PREFIX}{name}" in text.decode()


def test_a_publisher_that_is_silent_is_seen_and_a_stranger_is_not_named() -> None:
    stranger = {"publisher": "spiffe://prod.example/stranger", "last_seen": "2026-11-24T10:00:00Z", "accepted": 0, "rejected": {"wrong_publisher": 9}}  # fmt: skip
    seen = exposed(tallies.Tallies(publishers=[stranger], named=frozenset({"spiffe://prod.example/a"})))
    assert seen["publisher_last_seen_timestamp_seconds", of(publisher="spiffe://prod.example/a")] == 0
    assert seen["publisher_rejected_total", of(publisher=families.OTHER, reason="wrong_publisher")] == 9
    assert {dict(labels)["publisher"] for _, labels in seen} == {"spiffe://prod.example/a", families.OTHER}


@pytest.fixture
def loaded(tmp_path: Path) -> config.Loaded:
    return config.load(starter.create(tmp_path / "refunds", now=NOW).directory, NOW_US)


def test_the_counts_of_a_running_core_are_exposed_by_signal_and_publisher(loaded: config.Loaded) -> None:
    engine = _core.Engine()
    engine.swap(loaded.configuration)
    told = [
        {"name": "posture", "subject": starter.AGENT, "value": value, "observed_at": "2026-11-24T09:59:57Z"}
        for value in ("ok", "what?")
    ]
    admission = engine.admit(orjson.dumps({"signals": told}), publisher=starter.PUBLISHER, now_us=NOW_US)
    engine.apply(admission.changes, now_us=NOW_US)
    engine.check(request_json.to_bytes((loaded.root / "samples" / "refund.json").read_bytes()))
    engine.drain(max_records=10, wait_ms=0)
    reader = tallies.Reader()
    seen = exposed(reader.read(engine, loaded.configuration, now_us=NOW_US))
    # The engine decides by the clock of the machine.
    states = {dict(labels)["state"] for (name, labels), n in seen.items() if n and name == "signal_states_total"
              and dict(labels)["signal"] == "posture"}  # fmt: skip
    assert len(states) == 1
    assert seen["signal_states_total", of(signal="device_trust", state="missing")] == 1
    assert seen["signal_rejected_total", of(signal="posture", reason="wrong_type")] == 1
    routed = {labels: n for (name, labels), n in seen.items() if name == "route_decisions_total"}
    ((labels, count),) = routed.items()
    assert (dict(labels)["action"], dict(labels)["outcome"], count) == ("refund.create", "deny", 1)
    assert re.fullmatch(r"routes\.yaml:\d+", dict(labels)["route"])
    for stage in ("decode", "evaluate", "encode", "total"):
        assert seen["decision_duration_seconds_count", of(stage=stage)] == 1
        assert 0 < seen["decision_duration_seconds_sum", of(stage=stage)] < 10
    assert seen["publisher_accepted_total", of(publisher=starter.PUBLISHER)] == 1
    assert seen["publisher_rejected_total", of(publisher=starter.PUBLISHER, reason="wrong_type")] == 1
    assert seen["publisher_last_seen_timestamp_seconds", of(publisher=starter.PUBLISHER)] >= NOW_US / 1e6
    buckets = [n for (name, labels), n in seen.items() if name == "signal_age_seconds_bucket"
               and dict(labels)["signal"] == "posture"]  # fmt: skip
    assert buckets == sorted(buckets)
    assert buckets[-1] == seen["signal_age_seconds_count", of(signal="posture")]


def test_routes_that_a_directory_no_longer_has_are_forgotten(loaded: config.Loaded) -> None:
    engine = _core.Engine()
    engine.swap(loaded.configuration)
    engine.check(request_json.to_bytes((loaded.root / "samples" / "refund.json").read_bytes()))
    engine.check(b"\xff")
    engine.drain(max_records=10, wait_ms=0)
    assert {each["action"] for each in orjson.loads(engine.measures())["routes"]} == {"refund.create", ""}
    routes = loaded.root / "routes.yaml"
    routes.write_text("# one line more\n" + routes.read_text())
    engine.swap(config.load(loaded.root, NOW_US).configuration)
    assert [each["reasons"] for each in orjson.loads(engine.measures())["routes"]] == [
        {"malformed_request": 1}
    ]


def test_names_are_asked_of_a_register_once(loaded: config.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _core.Engine()
    engine.swap(loaded.configuration)
    reader = tallies.Reader()
    first = reader.read(engine, loaded.configuration, now_us=NOW_US)
    monkeypatch.setattr(tallies, "_named", lambda _: pytest.fail("asked again"))
    assert (
        reader.read(engine, loaded.configuration, now_us=NOW_US).named == first.named == {starter.PUBLISHER}
    )


@pytest.mark.parametrize("name", families.LABELLED)
def test_names_follow_the_conventions_of_prometheus(name: str) -> None:
    labels, kind, text = families.LABELLED[name]
    assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
    assert kind in ("counter", "gauge", "histogram")
    assert labels
    assert text
