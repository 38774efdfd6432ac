"""For tests of the bench: where its two programs are, if anywhere; and small documents of results, as it makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import results

__all__ = ["BUILT", "bench", "needs_programs", "one_round", "scales", "soak"]

_BUILDS = [Path(__file__).resolve().parents[1] / "target" / kind for kind in ("release", "debug")]
BUILT = next((each for each in _BUILDS if (each / "load").exists() and (each / "floor").exists()), None)
"""The folder of `load` and `floor`."""
needs_programs = pytest.mark.skipif(
    BUILT is None,
    reason="`load` and `floor` are not built: `make bench-load`, or any `cargo test --workspace`",
)


def one_round(
    cpu_us: float, *, rps: float = 10_000.0, p99_9: float = 800.0, wrong: int = 0
) -> dict[str, Any]:
    """A round whose latencies follow from its p99.9."""
    named = {
        "min": 40.0,
        "mean": 90.0,
        "p50": p99_9 / 8,
        "p75": p99_9 / 6,
        "p90": p99_9 / 4,
        "p95": p99_9 / 3,
    }
    named |= {"p99": p99_9 / 2, "p99_9": p99_9, "p99_99": p99_9 * 2, "max": p99_9 * 3}
    table = [[0.0, 40.0], [50.0, p99_9 / 8], [99.0, p99_9 / 2], [99.9, p99_9], [100.0, p99_9 * 3]]
    return {
        "cpu_us": cpu_us,
        "rps": rps,
        "answered": 1_000,
        "wrong": wrong,
        "late": 1,
        "unsent": 0,
        "outcomes": {"allow": 900, "deny": 100},
        "reasons": {},
        "latency_us": {**named, "table": table},
        "switches_a_check": 0.5,
        "load_share": 0.5,
        "load_bound": False,
    }


def _server(name: str, kind: str, cpu_us: float, rps: float, **more: Any) -> dict[str, Any]:
    spread = (0.99, 1.0, 1.01)
    return {
        "name": name,
        "kind": kind,
        "front": None,
        "influence": None,
        "log": None,
        "version": "1",
        "memory_mb": {"idle": {"rss": 110.0, "own": 45.0}, "after": {"rss": 112.0, "own": 47.0}},
        "closed": [one_round(cpu_us * part) for part in spread],
        "open": []
        if kind == "floor"
        else [
            {"rate": 5_000, "floor": one_round(3.0, p99_9=300.0), "server": one_round(cpu_us, p99_9=900.0)}
            for _ in spread
        ],
        "envoy": {results.FREE: [one_round(cpu_us, rps=rps * part) for part in spread]},
        **more,
    }


def bench(native_us: float = 18.0) -> dict[str, Any]:
    """The floor, a bare grpcio server, both of our front doors and a peer."""
    made = results.document(
        "bench",
        {"policies": 100, "policies_in_play": 10, "signals": 12, "request_bytes": 645},
        {"signalwarden": "0.1.0", "build": "release", "grpcio": "1.85.1"},
    )
    made["left_out"] = ["opa-sdk: there is no Go toolchain"]
    made["servers"] = [
        _server("floor (Rust, allow-all)", "floor", 3.0, 25_000.0),
        _server("grpcio, allow-all", "allow-all", 100.0, 8_000.0),
        _server("signalwarden grpcio", "signalwarden", 160.0, 5_000.0, front="grpcio", influence="default"),
        _server("signalwarden native", "signalwarden", native_us, 22_000.0, front="native", influence="none"),
        _server("cedar-go, log on", "peer", 70.0, 11_000.0, log=True),
    ]
    made["filters"] = [
        {"name": "Envoy RBAC", "version": "Envoy 1.40.0", "envoy": {"free": [one_round(15.0)]}}
    ]
    run = {
        "requests": 10,
        "failures": 0,
        "rps": 5.0,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "p99_ms": 3.0,
        "reasons": {},
    }
    made["locust"] = {"runs": [{"server": "signalwarden grpcio", **run}], "ceiling": run, "errors": []}
    return made


def scales() -> dict[str, Any]:
    """One scale of three points."""
    made = results.document("scales", {"front": "native", "influence": "none"}, {"signalwarden": "0.1.0"})
    points = [
        {
            "at": at,
            "cpu_us": [cpu] * 3,
            "ratio": [cpu / 18.0] * 3,
            "rps": [9_000.0] * 3,
            "memory_mb": {"rss": 110.0, "own": 45.0},
        }
        for at, cpu in ((10, 18.0), (1_000, 18.5), (100_000, 20.0))
    ]
    made["scales"] = [{"name": "policies", "x": "policies", "points": points}]
    return made


def soak() -> dict[str, Any]:
    """Ten seconds of a soak."""
    settings = {"front": "native", "influence": "none", "seconds": 10}
    made = results.document("soak", settings, {"signalwarden": "0.1.0"})
    made["soak"] = {
        "answered": 50_000,
        "rate": 5_000,
        "cpu_us": 25.0,
        "publications": 200,
        "reloads": 1,
        "slowest_reload_s": 0.2,
        "late": 0,
        "unsent": 0,
        "latency_us": one_round(25.0)["latency_us"],
        "server_over_5_ms": 0,
        "server_slowest_us": {"us": 900.0, "records_read": 50_000},
        "memory_mb": [
            {"at_s": at, "rss": 110.0, "own": own} for at, own in ((0.0, 60.0), (5.0, 62.0), (9.0, 61.0))
        ],
    }
    return made
