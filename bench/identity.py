"""`make bench-identity`: what a token costs at first sight and after, what a flood of bad ones does to honest callers,
and whether a rotated certificate loses a request. See README.md for what the figures mean.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from bench import directory, figures, flood, rotation, stage, tokens
from bench.stage import ROOT, BenchError, Server
from signalwarden import _core, config
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address
from signalwarden.decision_log import now_us
from signalwarden.keysets import read_key_set
from signalwarden.server import CHECK_METHOD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalwarden.keysets import PublicKey
    from signalwarden.tokens import Validator

COUNT: Final = 400
"""Tokens of each algorithm that are asked with one after the other, and requests of each other kind."""
INSIDE: Final = 1_000
"""Calls of each kind inside one process."""
BLOCK: Final = 50
"""Calls of one kind before the next kind has its turn: a loud neighbour meets all of them."""
ROUNDS: Final = 5
ROUND_S: Final = 2.0
RATE: Final = 10_000.0
"""Bad tokens a second."""
LOW: Final = 500.0
"""A flood that the check door could answer if it were of ordinary calls."""
SECONDS: Final = 6.0
HONEST_WARM, HONEST_NEW, NEWCOMERS = 100.0, 20.0, 5.0
"""Honest calls a second: with a token that is known, each with a new one, and each of a peer that nobody has seen."""
HONEST: Final = 3
"""Lanes of honest callers, of which the last may be kept out by a flood."""
HONEST_MOST: Final = 100_000
FLOOD_MOST: Final = 64
"""Calls in flight of one of the flood's lanes: 256 in all, of the 4,096 that the door takes."""
STRANGER: Final = "spiffe://prod.example/ns/other/sa/stranger"
NEWCOMER: Final = "spiffe://prod.example/ns/new/sa/agent-{:09d}"
TIMEOUT_S: Final = 30.0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures identity: tokens, floods, rotation; on loopback.")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help="of each phase (6)")
    parser.add_argument("--rate", type=float, default=RATE, metavar="N", help="bad tokens a second (10000)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="of processor time (5)")
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help="requests of each kind (400)")
    parser.add_argument("--only", choices=("inside", "sight", "flood", "rotation"), help="one part alone")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return figures.run(parser.parse_args(), measure, _said)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one document."""
    where, found = figures.opened()
    parts: dict[str, Callable[[Path], Any]] = {
        "inside": _inside,
        "sight": lambda folder: _sight(
            folder, where.server, arguments.count, arguments.rounds, found["wrong"]
        ),
        "flood": lambda folder: _floods(
            folder, where.server, arguments.rate, arguments.seconds, found["wrong"]
        ),
        "rotation": lambda folder: _rotation(folder, where.server, 2 * arguments.seconds, found["wrong"]),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as folder:
                found[name] = part(Path(folder))
    return found


def _spread(values: list[float]) -> dict[str, float]:
    """Of times, in the unit that they have."""
    ordered = sorted(values)
    at = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100}
    return {name: round(ordered[place], 2) for name, place in at.items()}


# ---- inside one process -----------------------------------------------------------------------------------


class _Keys:
    """A key set that is there."""

    def __init__(self, document: bytes) -> None:
        self._keys = read_key_set(document)
        self.revision = "0" * 64

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        return next((key for key in self._keys if key.kid == kid and key.is_for(algorithm)), None)

    def members(self) -> list[str]:
        return [key.member for key in self._keys]


def _inside(folder: Path) -> dict[str, Any]:
    """Validation and look-up without a door: microseconds of one thread."""
    from signalwarden.tokens import Desk, Entry, Limits, Terms, TokenClass, Validator

    made, issuer = tokens.make(folder)
    loaded = config.load(made.directory, now_us())
    settings = loaded.settings.identity.oauth[0]
    keys = _Keys((made.directory / "keys.json").read_bytes())
    engine = _core.Engine()
    engine.swap(loaded.configuration)
    engine.set_authority(f"keys:{tokens.ISSUER}", members=keys.members())
    engine.apply(
        engine.admit(directory.signals_body(), publisher=directory.PUBLISHER, now_us=now_us()).changes,
        now_us=now_us(),
    )
    terms = Terms(
        TokenClass.ACCESS_TOKEN, settings.issuer, frozenset(settings.audience), frozenset(settings.algorithms),
        settings.terms(), limits=Limits(3_600_000_000), authority=f"keys:{tokens.ISSUER}",
    )  # fmt: skip
    validator = Validator(entries={(settings.issuer, TokenClass.ACCESS_TOKEN): Entry(terms, keys)})
    cold = {
        name: _validated(validator, iter([issuer.token(name) for _ in range(INSIDE)]))
        for name in tokens.ALGORITHMS
    }
    cold["ES256, a wrong signature"] = _validated(validator, issuer.bad("signature"))
    desk = Desk(engine, validator)

    def answer(request: bytes) -> bytes:
        first = engine.check(request)
        answer = desk.answer(request, first) if isinstance(first, _core.Pending) else first
        assert isinstance(answer, bytes)
        return answer

    token = issuer.token()
    known = tokens.Template.of(token).filled(token)
    answer(known)
    plain = directory.allowed_request()
    strange = tokens.Template.of(next(issuer.bad("signature")), STRANGER)
    kinds: dict[str, Iterator[bytes]] = {
        "Envoy's peer alone": itertools.repeat(plain),
        "with a known token": itertools.repeat(known),
        **{f"first sight, {name}": iter(_new(issuer, name, INSIDE)) for name in tokens.ALGORITHMS},
        "a bad token of a peer that brought many": _filled(
            strange, issuer.bad("signature"), itertools.repeat(None)
        ),
    }
    return {"validation_us": cold, "check_us": _in_turn(engine, answer, kinds)}


def _validated(validator: Validator, signed: Iterator[str]) -> dict[str, float]:
    """From the token's bytes to the evidence as JSON, or to its refusal."""
    from signalwarden.tokens import TokenRefused

    took = []
    for token in [token.encode() for token in itertools.islice(signed, INSIDE)]:
        begun = time.perf_counter()
        with contextlib.suppress(TokenRefused):
            validator.validate(
                "oauth", token, digest="0" * 64, header="authorization", now_us=now_us()
            ).to_json()
        took.append(1e6 * (time.perf_counter() - begun))
    return _spread(took)


def _in_turn(
    engine: _core.Engine, answer: Callable[[bytes], bytes], kinds: dict[str, Iterator[bytes]]
) -> dict[str, dict[str, float]]:
    """Blocks of each kind by turns; the log is emptied between them."""
    took: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(INSIDE // BLOCK):
        for name, requests in kinds.items():
            for request in list(itertools.islice(requests, BLOCK)):
                begun = time.perf_counter()
                answer(request)
                took[name].append(1e6 * (time.perf_counter() - begun))
            while engine.queued():
                engine.drain(max_records=1_000, wait_ms=0)
    return {name: _spread(values) for name, values in took.items()}


# ---- through the door -------------------------------------------------------------------------------------


def _sight(folder: Path, core: int | None, count: int, rounds: int, wrong: list[str]) -> dict[str, Any]:
    """One caller, one call after the other: without a token, with a known one, and each with a new one, by turns."""
    made, issuer = tokens.make(folder)
    with stage.served(made, core) as server:
        _publish(server)
        plain = directory.allowed_request()
        token = issuer.token()
        known = tokens.Template.of(token).filled(token)
        new = {name: _new(issuer, name, count) for name in tokens.ALGORITHMS}
        kinds: dict[str, Iterator[bytes]] = {
            "Envoy's peer alone": itertools.repeat(plain),
            "with a known token": itertools.repeat(known),
            **{f"first sight, {name}": iter(requests) for name, requests in new.items()},
        }
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            ask = channel.unary_unary(CHECK_METHOD, bytes, bytes)
            for _ in range(20):
                ask(known, timeout=TIMEOUT_S)
            took: dict[str, list[float]] = {name: [] for name in kinds}
            for _ in range(count):
                for name, requests in kinds.items():
                    request = next(requests)
                    begun = time.perf_counter()
                    answer = bytes(ask(request, timeout=TIMEOUT_S))
                    took[name].append(1e6 * (time.perf_counter() - begun))
                    if b"allowed" not in answer:
                        wrong.append(f"{name}: an answer that is not `allowed`")
        cpu = _cpu(server, {"Envoy's peer alone": plain, "with a known token": known}, rounds, wrong)
    return {"call_us": {name: _spread(values) for name, values in took.items()}, "cpu_us": cpu}


def _new(issuer: tokens.Issuer, algorithm: str, count: int) -> list[bytes]:
    """Requests, each with a token that nobody has seen. An ECDSA signature in a JWT has one length, an RSA one too."""
    first = issuer.token(algorithm)
    template = tokens.Template.of(first)
    return [template.filled(token) for token in (issuer.token(algorithm) for _ in range(count))]


def _cpu(server: Server, requests: dict[str, bytes], rounds: int, wrong: list[str]) -> dict[str, float]:
    """Processor time of the server for a call, by turns; the median round."""
    found: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, request in requests.items():
            before = stage.cpu_seconds(server.pid)
            command = [sys.executable, str(ROOT / "bench" / "load.py"), str(server.port), str(ROUND_S)]
            ran = subprocess.run(
                command, input=request, capture_output=True, timeout=TIMEOUT_S + ROUND_S, check=False
            )
            if ran.returncode:
                raise BenchError(ran.stderr.decode(errors="replace").strip())
            time.sleep(0.6)  # a record is on disk within half a second: it counts in its round
            said = json.loads(ran.stdout)
            if set(said["reasons"]) != {"allowed"}:
                wrong.append(f"{name}: {said['reasons']}")
            found[name].append(1e6 * (stage.cpu_seconds(server.pid) - before) / said["answered"])
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def _publish(server: Server) -> None:
    with AdminClient(Address("127.0.0.1", server.admin_port), server.token) as admin:
        if rejected := admin.publish(directory.signals_body())["rejected"]:
            raise BenchError(f"the server refused signals of the bench: {rejected}")


# ---- floods -----------------------------------------------------------------------------------------------


def _floods(
    folder: Path, core: int | None, rate: float, seconds: float, wrong: list[str]
) -> list[dict[str, Any]]:
    """Honest callers alone, beside ordinary calls of a stranger, and beside bad tokens: as many calls, so that what
    tokens cost beyond calls can be seen."""
    made, issuer = tokens.make(folder)
    phases: list[dict[str, Any]] = []
    with stage.served(made, core) as server:
        _publish(server)
        for low in sorted({min(LOW, rate), rate}):
            floods: dict[str, list[flood.Lane]] = {
                "nobody else": [],
                "calls without a token": _calls(low),
                "bad tokens of one peer": _bad(issuer, low, one_peer=True),
                "bad tokens of many addresses": _bad(issuer, low, one_peer=False),
                "nobody else, after": [],
            }
            for name, lanes in floods.items():
                phases.append(_phase(server, made, issuer, name, lanes, low, seconds, wrong))
    return phases


def _calls(rate: float) -> list[flood.Lane]:
    request = directory.allowed_request(STRANGER)
    lanes = len(tokens.BAD)
    return [flood.Lane("no token", itertools.repeat(request), rate / lanes, FLOOD_MOST) for _ in range(lanes)]


def _bad(issuer: tokens.Issuer, rate: float, *, one_peer: bool) -> list[flood.Lane]:
    lanes = []
    for number, kind in enumerate(tokens.BAD):
        distinct = issuer.bad(kind)
        template = tokens.Template.of(next(distinct), STRANGER if one_peer else "")
        places: Iterator[str | None] = itertools.repeat(None)
        if not one_peer:
            # Each lane has addresses of its own, so no two calls come from one.
            places = itertools.islice(flood.addresses(), number, None, len(tokens.BAD))
        lanes.append(
            flood.Lane(kind, _filled(template, distinct, places), rate / len(tokens.BAD), FLOOD_MOST)
        )
    return lanes


def _filled(
    template: tokens.Template, distinct: Iterator[str], places: Iterator[str | None]
) -> Iterator[bytes]:
    for token, place in zip(distinct, places, strict=False):
        yield template.filled(token, place)


def _phase(
    server: Server,
    made: directory.Made,
    issuer: tokens.Issuer,
    name: str,
    lanes: list[flood.Lane],
    rate: float,
    seconds: float,
    wrong: list[str],
) -> dict[str, Any]:
    token = issuer.token()
    known = tokens.Template.of(token).filled(token)
    new = iter(_new(issuer, "ES256", int(HONEST_NEW * seconds) + 10))
    honest = [
        flood.Lane("known", itertools.repeat(known), HONEST_WARM, HONEST_MOST),
        flood.Lane("first sight", new, HONEST_NEW, HONEST_MOST),
        flood.Lane("newcomers", _newcomers(issuer, int(NEWCOMERS * seconds) + 10), NEWCOMERS, HONEST_MOST),
    ]
    log = made.directory / "var" / "decisions.jsonl"
    flood.drive(server.port, [flood.Lane("known", itertools.repeat(known), 20, 20)], 0.2)
    mark = log.stat().st_size
    cpu = stage.cpu_seconds(server.pid)
    seen = flood.drive(server.port, [*honest, *lanes], seconds)
    cpu = (stage.cpu_seconds(server.pid) - cpu) / seen[0].seconds
    time.sleep(1.0)
    # A newcomer has no signals, so its good token leads to a denial, but to another one than a token's.
    kept_out = seen[2].reasons.get("token_invalid", 0)
    wrong += [
        f"{name}: {lane.name}: {lane.reasons}, {lane.failed} without an answer"
        for lane in seen[:2]
        if set(lane.reasons) != {"allowed"} or lane.failed
    ]
    return {
        "flood": name,
        "asked_for": rate if lanes else 0,
        "sent": round(sum(lane.sent for lane in seen[HONEST:]) / seen[0].seconds),
        "answered": round(sum(lane.rate for lane in seen[HONEST:])),
        "honest": [asdict(lane) for lane in seen[:2]],
        "newcomers": seen[2].answered,
        "newcomers_kept_out": kept_out,
        "flooding": [asdict(lane) for lane in seen[HONEST:]],
        "refused": _refused(log, mark),
        "cpu": round(cpu, 2),
        "memory_mb": _memory_mb(server.pid),
    }


def _newcomers(issuer: tokens.Issuer, count: int) -> Iterator[bytes]:
    """Good tokens, each of another peer."""
    first = issuer.token()
    template = tokens.Template.of(first, NEWCOMER.format(0))
    names = (NEWCOMER.format(number) for number in itertools.count(time.monotonic_ns() // 1_000_000 % 10**8))
    ready = [template.filled(issuer.token(), principal=name) for name in itertools.islice(names, count)]
    return iter(ready)


def _refused(log: Path, mark: int) -> dict[str, int]:
    """What the records since the mark say of denials."""
    found: collections.Counter[str] = collections.Counter()
    with log.open("rb") as lines:
        lines.seek(mark)
        for line in lines:
            record = json.loads(line)
            if record["kind"] == "decision" and record["outcome"] == "deny":
                found[f"{record['reason']}: {record.get('detail', '')}"] += 1
    return dict(found.most_common(12))


def _memory_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


# ---- rotation ---------------------------------------------------------------------------------------------


def _rotation(folder: Path, core: int | None, seconds: float, wrong: list[str]) -> dict[str, Any]:
    found = rotation.run(folder, core, seconds)
    wrong += [f"rotation: {lost}" for lost in found.lost[:5]]
    if len(found.serials) < 2:
        wrong.append("rotation: the server never showed a new certificate")
    return {
        "seconds": found.seconds,
        "rotations": found.rotations,
        "shown": len(found.serials),
        "connections": found.dials,
        "requests": found.calls,
        "lost": len(found.lost),
        "wait_ms": _spread(found.waits),
    }


# ---- for people -------------------------------------------------------------------------------------------


def _said(found: dict[str, Any]) -> Iterator[str]:
    yield figures.headline(found)
    if inside := found.get("inside"):
        for name, spread in inside["validation_us"].items():
            yield f"  validating a token, {name:28} {_line(spread, 'µs')}"
        for name, spread in inside["check_us"].items():
            yield f"  a check, {name:40} {_line(spread, 'µs')}"
    if sight := found.get("sight"):
        for name, spread in sight["call_us"].items():
            yield f"  a call by gRPC, {name:24} {_line(spread, 'µs')}"
        for name, cpu in sight["cpu_us"].items():
            yield f"  processor time of a call, {name:20} {cpu} µs"
    for phase in found.get("flood", ()):
        yield (
            f"  {phase['flood']}: {phase['asked_for']:g}/s asked for, {phase['sent']}/s sent, "
            f"{phase['answered']}/s answered; server {phase['cpu']} cores, {phase['memory_mb']} MB"
        )
        for lane in phase["honest"]:
            yield (
                f"    honest, {lane['name']:12} {lane['answered']} answers, p50 {lane['p50_ms']} ms, "
                f"p99 {lane['p99_ms']} ms, max {lane['max_ms']} ms"
            )
        yield f"    newcomers {phase['newcomers']}, kept out {phase['newcomers_kept_out']}"
        for reason, count in phase["refused"].items():
            yield f"    {count:7} {reason}"
    if turned := found.get("rotation"):
        yield (
            f"  {turned['rotations']} rotations in {turned['seconds']:g} s, {turned['shown']} certificates shown, "
            f"{turned['connections']} connections, {turned['requests']} requests, {turned['lost']} lost; "
            f"{_line(turned['wait_ms'], 'ms')}"
        )
    yield from (f"WRONG: {wrong}" for wrong in found["wrong"][:20])


def _line(spread: dict[str, float], unit: str) -> str:
    return ", ".join(f"{name} {value:g} {unit}" for name, value in spread.items())


if __name__ == "__main__":
    sys.exit(main())
