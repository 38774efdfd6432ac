"""The rounds through the real Envoy: each server behind it, Envoy's own filters, and Envoy without authorization."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench import cases, loading, procfs, results, rounds, through_envoy
from bench.through_envoy import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.cases import Case
    from bench.peers import EnvoyFilter
    from bench.rounds import Stand
    from bench.stage import Places
    from bench.through_envoy import Front

__all__ = ["OPEN", "Passage", "measure", "passages", "status_of"]

OPEN: Final = "Envoy, no authorization"
ANSWER_S: Final = 10.0
LET_THROUGH, DENIED = 200, (400, 401, 403)


@dataclass(frozen=True, slots=True)
class Passage:
    """A way through Envoy behind which no server stands."""

    name: str
    version: str
    listener: Listener
    requests: Path
    answers: Mapping[str, bool]
    """The cases that it is asked, and whether each is let through."""
    envoy: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def passages(filters: Sequence[EnvoyFilter], folder: Path, directory: Path) -> list[Passage]:
    """Envoy's filters, which get the directory that peers get, and Envoy that asks nobody."""
    made = [_passage(OPEN, "", None, dict.fromkeys((case.name for case in cases.CASES), True), folder)]
    made += [
        _passage(each.name, each.version(), each.http_filter(directory), each.answers(), folder)
        for each in filters
    ]
    return made


def _passage(
    name: str,
    version: str,
    http_filter: Mapping[str, Any] | None,
    answers: Mapping[str, bool],
    folder: Path,
) -> Passage:
    """It is timed with those requests of the load that it can decide: denials only if it can express them."""
    judged = "over the limit" in answers
    asked = (case for case in cases.timed() if case.allow or judged)
    file = folder / f"{name.replace(' ', '-').replace(',', '')}.jsonl"
    text = cases.load_lines(asked, reasons=False, all_allowed=bool(answers.get("over the limit")))
    file.write_text(text, encoding="utf-8")
    return Passage(name, version, Listener(name, http_filter=http_filter), file, answers)


@contextlib.contextmanager
def started(stands: Sequence[Stand], beside: Sequence[Passage], folder: Path) -> Iterator[Front]:
    """Envoy with a listener for each."""
    listeners = [
        *(Listener(stand.who.name, stand.server.target) for stand in stands),
        *(passage.listener for passage in beside),
    ]
    with through_envoy.started(folder, listeners, None) as envoy:
        yield envoy


def compare(envoy: Front, stands: Sequence[Stand], beside: Sequence[Passage]) -> list[str]:
    """Sends each case through each listener. A sentence for each that does not come out as it must."""
    wrong = []
    for stand in stands:
        for case in cases.CASES:
            expected = case.allow or not stand.who.decides
            wrong += _judged(stand.who.name, envoy.ports[stand.who.name], case, expected=expected)
    for passage in beside:
        for case in cases.CASES:
            if case.name in passage.answers:
                expected = passage.answers[case.name]
                wrong += _judged(passage.name, envoy.ports[passage.name], case, expected=expected)
    return wrong


def _judged(who: str, port: int, case: Case, *, expected: bool) -> list[str]:
    status = status_of(port, case)
    if (status == LET_THROUGH) if expected else (status in DENIED):
        return []
    return [f"through Envoy, {who} answers `{case.name}` with {status}"]


def status_of(port: int, case: Case) -> int:
    """Status of the answer to one request of HTTP/1.1; 0 if there was none."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
        connection.sendall(case.http_head.encode())
        with connection.makefile("rb") as answer:
            words = answer.readline().split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def measure(
    stands: Sequence[Stand],
    beside: Sequence[Passage],
    envoy: Front,
    where: Places,
    *,
    placement: str,
    times: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """Rounds in one placement: of each server by its name; those of `beside` are put into them."""
    core = where.load if placement == results.APART else None
    seen: dict[str, list[dict[str, Any]]] = {stand.who.name: [] for stand in stands}
    for number in range(times):
        for stand in stands:
            _place(placement, where, envoy.pid, stand.server.pid)
            taken = rounds.through(stand, envoy.ports[stand.who.name], seconds, core)
            seen[stand.who.name].append(taken)
            say(
                f"through Envoy ({placement}) {number + 1} of {times}: {taken['rps']:,.0f}/s, {stand.who.name}"
            )
        for passage in beside:
            taken = _pass(passage, envoy, seconds, core)
            passage.envoy.setdefault(placement, []).append(taken)
            say(f"through Envoy ({placement}) {number + 1} of {times}: {taken['rps']:,.0f}/s, {passage.name}")
    settle(where, (stand.server.pid for stand in stands))
    return seen


def _pass(passage: Passage, envoy: Front, seconds: float, core: int | None) -> dict[str, Any]:
    asking = loading.Asking(seconds, connections=rounds.ENVOY_CONNECTIONS, streams=1, http=True)
    before = procfs.read(envoy.pid)
    seen = loading.ask(f"127.0.0.1:{envoy.ports[passage.name]}", passage.requests, asking, core)
    return rounds.figures(seen, before, procfs.read(envoy.pid))


def _place(placement: str, where: Places, envoy: int, server: int) -> None:
    if where.server is None or where.load is None:
        return
    both = (where.server, where.load)
    procfs.run_on(envoy, (where.load,) if placement == results.APART else both)
    procfs.run_on(server, (where.server,) if placement == results.APART else both)


def settle(where: Places, servers: Iterable[int]) -> None:
    """Puts the servers back on their core."""
    for pid in servers if where.server is not None else ():
        procfs.run_on(pid, (where.server or 0,))
