"""Whether all decide alike, before anything is timed: signalwarden, and each peer that can run here.

    python -m bench.peers.agree [--only NAME] [--policies N]

Every server gets the same directory, in which many principals differ by one signal each: one that forbids, one that is
missing, one that is stale. It is asked the same questions, whose answers are known beforehand. Each difference is one
line, and the exit status 1. Servers are asked directly; Envoy's RBAC filter, which knows no signals, is compared by
`make bench` through Envoy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from bench import cases, directory, peers, rounds, servers, stage
from bench.cases import Case
from bench.stage import BenchError
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.stage import Server

__all__ = ["compare", "differences", "make", "questions", "signals_of"]

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
ANSWER_S: Final = 10.0
STALE: Final = timedelta(hours=25)
"""Beyond the 24 hours of every contract of the bench."""
FORBIDDING: Final[dict[str, object]] = {
    "posture": "compromised",
    "risk_score": 81,
    "incident": True,
    "patch_age_days": 91,
    "region": "cn-north-1",
    "device_trust": 0,
}
"""Signals that a forbid reads, each with a value for which it holds: without them nobody is let in."""
ALL: Final = "all of them"
UNLISTED: Final = "unlisted"
DIFFERS, ERROR, INTERRUPTED = 1, 2, 130
_BASE: Final = "spiffe://prod.example/ns/payments/sa/"
_PATH: Final = "/v1/accounts/42/transfers"


def _principal(what: str, signal: str) -> str:
    return f"{_BASE}{what}-{signal.replace('_', '-').replace(' ', '-')}"


def questions() -> Iterator[Case]:
    """The cases of the bench, and one for each signal that forbids, is missing or is stale, or is at its edge."""
    yield from cases.CASES
    for name in FORBIDDING:
        yield _case(f"{name} forbids", "forbids", name, allow=False)
    for what in ("missing", "stale"):
        for name in directory.SIGNALS:
            yield _case(f"{name} is {what}", what, name, allow=name not in FORBIDDING)
        yield _case(f"{ALL} are {what}", what, ALL, allow=False)
    yield _case("well, but in no file of entities", UNLISTED, ALL, allow=True)
    yield _case("no permit holds", "no-permit", ALL, allow=False)
    for text in ("", "many", "1&amount=2"):
        yield Case(f"the amount is `{text}`", f"{_PATH}?amount={text}", False, "malformed_request")
    other = "/v1/other.a00000/7"
    host = "things.prod.example"
    yield Case("another action", other, True, "allowed", method="GET", host=host)
    stranger = cases.STRANGER
    yield Case("another action, a stranger", other, False, "signal_unavailable", stranger, "GET", host)
    unwell = _principal("missing", "device_trust")
    yield Case("another action without its signal", other, False, "signal_unavailable", unwell, "GET", host)


def _case(name: str, what: str, signal: str, *, allow: bool) -> Case:
    """A transfer of a principal of its own. A denial for the value has another reason than one for want of it."""
    denied = {"forbids": "policy_denied", "no-permit": "no_policy_permits"}.get(what, "signal_unavailable")
    return Case(name, f"{_PATH}?amount=1250", allow, "allowed" if allow else denied, _principal(what, signal))


def signals_of(now: datetime) -> list[dict[str, object]]:
    """What is published: all twelve of the ordinary principal, and the others' that differ."""
    told = [
        _signal(name, directory.PRINCIPAL, value, now) for name, (_, _, value) in directory.SIGNALS.items()
    ]
    for what, names in _WHO:
        for name in names:
            told += _different(what, name, now)
    return told


def _different(what: str, which: str, now: datetime) -> Iterator[dict[str, object]]:
    """The signals of the principal of whom one, or all, are as `what` says."""
    principal = _principal(what, which)
    for name, (_, _, well) in directory.SIGNALS.items():
        value, observed = well, now
        if which in (name, ALL):
            if what == "missing":
                continue
            if what == "stale":
                observed = now - STALE
            elif what == "forbids":
                value = FORBIDDING[name]
            elif what == "no-permit" and name in _PERMITS:
                value = False
        yield _signal(name, principal, value, observed)


_PERMITS: Final = ("attested", "build_signed", "on_call")
"""One of each permit: none holds without them."""
_WHO: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("forbids", tuple(FORBIDDING)),
    ("missing", (*directory.SIGNALS, ALL)),
    ("stale", (*directory.SIGNALS, ALL)),
    ("no-permit", (ALL,)),
    (UNLISTED, (ALL,)),
)


def _signal(name: str, subject: str, value: object, observed: datetime) -> dict[str, object]:
    at = observed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"name": name, "subject": subject, "value": value, "observed_at": at}


def make(folder: Path, policies: int, *, front: str = "grpcio") -> directory.Made:
    """The directory of the bench with all those principals, and the signals beside its policies."""
    made = directory.make(folder / "directory", policies=policies, front=front)
    names = [
        directory.PRINCIPAL,
        *(_principal(what, name) for what, names in _WHO for name in names if what != UNLISTED),
    ]
    (made.directory / "entities.json").write_text(directory.entities_json(names), encoding="utf-8")
    signals = {"signals": signals_of(datetime.now(UTC))}
    (made.directory / "signals.json").write_text(json.dumps(signals), encoding="utf-8")
    return made


def differences(who: str, ask: Callable[[Case], bool], of: Iterable[Case]) -> list[str]:
    """A line for each question that is not answered as it must be."""
    return [
        f"{who} {'denies' if case.allow else 'lets in'} `{case.name}`"
        for case in of
        if ask(case) is not case.allow
    ]


def compare(only: Sequence[str] | None, policies: int) -> tuple[list[str], list[str], list[str]]:
    """Who was asked, who was left out and why, and what differs."""
    if policies <= directory.IN_PLAY:
        raise BenchError(
            f"more than {directory.IN_PLAY} policies are needed, so that there is another action"
        )
    found = peers.found(only)
    known = [*(peer.name for peer in found.servers), *(filter_.name for filter_ in found.filters)]
    unknown = set(only or ()) - {*known, *(sentence.split(":", 1)[0] for sentence in found.left_out)}
    if unknown:
        raise BenchError(f"there is no peer `{min(unknown)}`")
    asked, told, wrong, left_out = list(questions()), [], [], list(found.left_out)
    with tempfile.TemporaryDirectory(prefix="signalwarden-bench-") as name:
        folder = Path(name)
        for front in servers.FRONTS:
            if front == "native" and (sentence := stage.native_missing(folder / "missing")):
                left_out.append(sentence)
                continue
            who = f"signalwarden {front}"
            with stage.served(make(folder / front, policies, front=front), None) as server:
                stage.publish(server, (folder / front / "directory" / "signals.json").read_bytes())
                wrong += _asked(who, server, asked)
            told.append(who)
        made = make(folder / "peers", policies).directory
        for peer in found.servers:
            for log in peer.logs:
                who = f"{peer.name} ({peer.version()}), log {'on' if log else 'off'}"
                with peer.start(None, made, log=log) as server:
                    wrong += _asked(who, server, asked)
                told.append(who)
    return told, left_out, wrong


def _asked(who: str, server: Server, asked: Sequence[Case]) -> list[str]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(CHECK, bytes, bytes)
        return differences(
            who, lambda case: rounds.allowed(call(case.check_request, timeout=ANSWER_S)), asked
        )


def main() -> int:
    """For the command line."""
    parser = argparse.ArgumentParser(description="Asks signalwarden and its peers the same questions.")
    parser.add_argument("--only", action="append", metavar="NAME", help="a peer; may be said again")
    parser.add_argument("--policies", type=int, default=directory.POLICIES, metavar="N", help="default 100")
    arguments = parser.parse_args()
    try:
        told, left_out, wrong = compare(arguments.only, arguments.policies)
    except (BenchError, SignalwardenError, ValueError) as error:
        print(f"agree: {error}", file=sys.stderr)
        return ERROR
    except grpc.RpcError as error:
        print(f"agree: a server did not answer: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    print("\n".join([*left_out, *wrong]), end="\n" if left_out or wrong else "")
    count = sum(1 for _ in questions())
    print(f"{count} questions, {len(wrong)} answered otherwise than they must be, by: {'; '.join(told)}")
    return DIFFERS if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
