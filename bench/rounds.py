"""One round of a measurement: a load of a few seconds on one server, and what the server's process used for it.

Rounds of all servers alternate, so that a neighbour's burst meets all of them; a figure is the median of its rounds.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from bench import procfs, stage
from bench.loading import Asking, Seen, ask
from bench.stage import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.cases import Case
    from bench.servers import Contestant
    from bench.stage import Places, Server

__all__ = ["Stand", "capacity", "closed", "compare", "half", "opened", "through"]

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
ANSWER_S: Final = 10.0
SETTLE_S: Final = 0.6
"""A record is on disk within 0.5 s: what a round's records cost counts in that round."""
SETTLE_MOST_S: Final = 60.0
"""Where a record costs more than its answer, the log is behind when the load ends."""
PERCENTILES: Final = ("p50", "p99", "p99_9", "max")
ENVOY_CONNECTIONS: Final = 16
LEAST_RATE: Final = 50
PROBE_S: Final = 2.0
"""Enough of a constant rate to tell what a check costs at it."""


@dataclass(frozen=True, slots=True)
class Stand:
    """A server as it stands ready, with the file that the load asks of it."""

    who: Contestant
    server: Server
    requests: Path
    idle_mb: dict[str, float]
    """Its memory before the first load: `procfs.memory`."""


def compare(stand: Stand, cases: Iterable[Case]) -> list[str]:
    """Asks each case once. A sentence for each answer that is not as it must be."""
    wrong = []
    target = stand.server.target.replace("unix://", "unix:")
    # For a Unix socket the library would make an authority of its path, which is none to a strict reader of HTTP/2.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost"))
    with grpc.insecure_channel(target, options=options) as channel:
        check = channel.unary_unary(METHOD, None, None)
        for case in cases:
            try:
                allow = allowed(check(case.check_request, timeout=ANSWER_S, wait_for_ready=True))
            except grpc.RpcError as error:
                wrong.append(f"{stand.who.name} answers `{case.name}` with {error.code().name}")
                continue
            if allow != (case.allow or not stand.who.decides):
                wrong.append(
                    f"{stand.who.name} {'allows' if allow else 'denies'} `{case.name}`, which it must not"
                )
    return wrong


def allowed(answer: bytes) -> bool:
    """Whether a `CheckResponse` lets through: its status (field 1) has no code (field 1) other than 0."""
    from envoy_data_plane.envoy.service.auth.v3 import CheckResponse

    status = CheckResponse.parse(answer).status
    return status is None or status.code == 0


def closed(
    stand: Stand, seconds: float, core: int | None, *, connections: int = 2, streams: int = 8
) -> dict[str, Any]:
    """As many as it can, 16 in flight: throughput, and what a check costs the server's process, its record included."""
    asking = Asking(seconds, connections=connections, streams=streams)
    return _measured(stand, stand.server.target, asking, core)


def capacity(taken: Sequence[dict[str, Any]], cores: int) -> float:
    """Checks a second that a server can keep up, by its closed rounds. A short burst can be faster than that where
    records wait to be written meanwhile: what they cost is in the processor time, and bounds it."""
    cpu_us = statistics.median(float(each["cpu_us"]) for each in taken)
    rps = statistics.median(float(each["rps"]) for each in taken)
    return min(rps, cores * 1e6 / cpu_us) if cpu_us else rps


def half(stand: Stand, taken: Sequence[dict[str, Any]], where: Places) -> float:
    """Half of what a server can keep up at a constant rate, in checks a second. The calls of a closed loop come
    together, and what comes alone can cost half as much again: what a check costs at such a rate decides."""
    first = capacity(taken, where.server_cores) / 2
    cpu_us = opened(stand, first, PROBE_S, where.load)["cpu_us"]
    return min(first, where.server_cores * 1e6 / cpu_us / 2) if cpu_us else first


def opened(stand: Stand, rate: float, seconds: float, core: int | None) -> dict[str, Any]:
    """At a constant rate: latency from the moment at which each was to be sent."""
    asking = Asking(seconds, rate=max(LEAST_RATE, round(rate)))
    return {"rate": asking.rate, **_measured(stand, stand.server.target, asking, core)}


def through(stand: Stand, port: int, seconds: float, core: int | None) -> dict[str, Any]:
    """As many as pass Envoy on 16 connections of HTTP/1.1, one at a time on each."""
    asking = Asking(seconds, connections=ENVOY_CONNECTIONS, streams=1, http=True)
    return _measured(stand, f"127.0.0.1:{port}", asking, core)


def _measured(stand: Stand, target: str, asking: Asking, core: int | None) -> dict[str, Any]:
    server = stand.server
    written = stage.records_written(server) if stand.who.ours else 0
    before = procfs.read(server.pid)
    seen = ask(target, stand.requests, asking, core)
    time.sleep(SETTLE_S if stand.who.log else 0.0)
    after = procfs.read(server.pid)
    if stand.who.ours and stage.records_written(server) < written + seen.answered_in_all:
        _settle(server, written + seen.answered_in_all)
        after = procfs.read(server.pid)
    return figures(seen, before, after)


def figures(seen: Seen, before: procfs.Reading, after: procfs.Reading) -> dict[str, Any]:
    """What a round comes to. Processor time and switches are of all answers, those of the warm-up among them."""
    switches = after.voluntary - before.voluntary + after.involuntary - before.involuntary
    return {
        "cpu_us": (after.cpu_s - before.cpu_s) / seen.answered_in_all * 1e6,
        "rps": seen.rps,
        "answered": seen.answered,
        "wrong": seen.wrong,
        "late": seen.late,
        "unsent": seen.unsent,
        "outcomes": seen.outcomes,
        "reasons": seen.reasons,
        "latency_us": seen.latency_us,
        "switches_a_check": max(0, switches) / seen.answered_in_all,
        "load_share": round(seen.load_share, 3),
        "load_bound": seen.load_bound,
    }


def _settle(server: Server, records: int) -> None:
    """Waits until what was answered is in the log."""
    deadline = time.monotonic() + SETTLE_MOST_S
    while stage.records_written(server) < records:
        if time.monotonic() > deadline:
            raise BenchError(f"{records} records were not in the log {SETTLE_MOST_S:g} s after their answers")
        time.sleep(SETTLE_S)
