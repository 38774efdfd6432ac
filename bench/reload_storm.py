"""`make bench-reload`: a hundred reloads of a thousand policies under steady load, and not one answer that is wrong.

Two variants of a directory let different callers in; a link is moved from one to the other, as a mounted ConfigMap's
is, and the server is told to reload. Meanwhile both callers ask without a pause. Each answer names the revision that
it was decided by, so each can be judged: it is the answer that this revision gives, whole, or it is counted here.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import re
import selectors
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # run as a script, `bench` is not found otherwise

from bench import directory, stage
from bench.load import CALLS, REASON, TIMEOUT_S, Connection
from bench.stage import BenchError, Server
from signalwarden import _core
from signalwarden.admin_client import AdminClient
from signalwarden.config import Address
from signalwarden.errors import SignalwardenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Figures", "run"]

FAILED, ERROR = 1, 2
RELOADS: Final = 100
POLICIES: Final = 1_000
CALM_S: Final = 3.0
"""Load without reloads, for comparison."""
PAUSE_S: Final = 0.02
"""Between two reloads: answers of each revision are to be seen."""
REVISION: Final = re.compile(rb"revision\x12.\x1a.([0-9a-f]{64})", re.DOTALL)
"""In the dynamic metadata: key, then a string value."""
VARIANTS: Final = ("one", "two")
CALLERS: Final = {
    "one": directory.PRINCIPAL,
    "two": "spiffe://prod.example/ns/payments/sa/second-agent",
}
"""Whom each variant lets in."""


# ---- the directory ----------------------------------------------------------------------------------------


def make(where: Path, policies: int) -> directory.Made:
    """Both variants beside one another below `volume`, as the kubelet mounts a ConfigMap."""
    volume = where / "volume"
    base = directory.make(where / "base", policies=policies)
    for variant in VARIANTS:
        made = volume / f"..{variant}"
        shutil.copytree(base.directory, made)
        (made / "entities.json").write_text(_entities(variant))
        (made / "policies" / "variant.cedar").write_text(
            f'@id("of-team-{variant}")\n'
            'forbid (principal, action == Action::"transfer.create", resource)\n'
            f'unless {{ principal.owner == "team-{variant}@prod.example" }};\n'
        )
        with (made / "signalwarden.yaml").open("a") as settings:
            settings.write("watch: false\n")  # the reloads that are counted are those that are asked for
    turn(volume, "one")
    for entry in (volume / "..one").iterdir():
        (volume / entry.name).symlink_to(f"..data/{entry.name}")
    return directory.Made(volume, base.publisher_token)


def _entities(variant: str) -> str:
    """Whoever is of the variant's team is let in. Policies of one with entities of the other would let in nobody."""
    teams = {caller: f"team-{variant if name == variant else 'none'}" for name, caller in CALLERS.items()}
    return json.dumps(
        [
            {
                "uid": {"type": "Workload", "id": caller},
                "attrs": {"owner": f"{team}@prod.example"},
                "parents": [],
            }
            for caller, team in teams.items()
        ]
    )


def turn(volume: Path, variant: str) -> None:
    """Moves the link, at once."""
    fresh = volume / "..data_tmp"
    fresh.symlink_to(f"..{variant}")
    fresh.rename(volume / "..data")


# ---- the load ---------------------------------------------------------------------------------------------


class Witness(Connection):
    """One caller's connection; keeps of each answer its revision and its reason."""

    def __init__(self, port: int, caller: str) -> None:
        super().__init__(port, directory.allowed_request(caller))
        self.seen: collections.Counter[tuple[str, str]] = collections.Counter()

    def _note(self, payload: bytes) -> None:
        revision, reason = REVISION.search(payload), REASON.search(payload)
        if reason is not None:
            self.seen[(revision[1].decode() if revision else "none", reason[1].decode())] += 1


class Load(threading.Thread):
    """Keeps CALLS in flight for each caller until it is told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__(name="load", daemon=True)
        self.witnesses = {name: Witness(port, caller) for name, caller in CALLERS.items()}
        self.error: str | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            self._answer_all()
        except (SystemExit, OSError) as error:
            self.error = str(error)

    def _answer_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            for witness in self.witnesses.values():
                selector.register(witness.socket, selectors.EVENT_READ, witness)
                witness.socket.sendall(witness.call(CALLS))
            while not self._ended.is_set() or any(w.open for w in self.witnesses.values()):
                ready = selector.select(TIMEOUT_S)
                if not ready:
                    raise SystemExit(f"no answer within {TIMEOUT_S:g} s")
                for key, _ in ready:
                    key.data.take(not self._ended.is_set())

    def end(self) -> None:
        """Waits for the answers under way."""
        self._ended.set()
        self.join(2 * TIMEOUT_S)
        for witness in self.witnesses.values():
            witness.socket.close()

    def mark(self) -> dict[str, int]:
        """How many answers each caller has had."""
        return {name: len(witness.waits) for name, witness in self.witnesses.items()}

    def waits(self, since: dict[str, int], until: dict[str, int]) -> list[float]:
        """Of the answers between two marks, in milliseconds, sorted."""
        return sorted(
            1e3 * wait
            for name, witness in self.witnesses.items()
            for wait in witness.waits[since[name] : until[name]]
        )


# ---- the storm --------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """What came of it. `wrong` is empty, or the promise is broken."""

    reloads: int
    policies: int
    seconds: float
    answers: int
    during_reloads: int
    reload_ms: dict[str, float]
    calm_ms: dict[str, float]
    storm_ms: dict[str, float]
    by_revision: dict[str, int]
    """Answers of each variant."""
    wrong: list[str] = field(default_factory=list)


def run(where: Path, *, reloads: int = RELOADS, policies: int = POLICIES, calm_s: float = CALM_S) -> Figures:
    """Serves, loads, reloads, and judges every answer."""
    cores = stage.places()
    made = make(where, policies)
    with stage.served(made, cores.server) as server, _admin(server) as admin:
        for caller in CALLERS.values():
            if answer := admin.publish(directory.signals_body(caller))["rejected"]:
                raise BenchError(f"the server refused signals of the bench: {answer}")
        load = Load(server.port)
        load.start()
        time.sleep(calm_s)
        calm = load.mark()
        begun = time.monotonic()
        took, revisions = _storm(server, made.directory, reloads)
        seconds = time.monotonic() - begun
        stormy = load.mark()
        load.end()
    figures = Figures(
        reloads=reloads,
        policies=policies + 1,
        seconds=seconds,
        answers=sum(load.mark().values()),
        during_reloads=sum(stormy.values()) - sum(calm.values()),
        reload_ms=_spread(sorted(took)),
        calm_ms=_spread(load.waits(dict.fromkeys(calm, 0), calm)),
        storm_ms=_spread(load.waits(calm, stormy)),
        by_revision=collections.Counter(),
    )
    _judge(load, revisions, figures)
    return figures


def _admin(server: Server) -> AdminClient:
    return AdminClient(Address("127.0.0.1", server.admin_port), server.token)


def _storm(server: Server, volume: Path, reloads: int) -> tuple[list[float], dict[str, str]]:
    """Turns and reloads; milliseconds of each reload, and which variant each revision is."""
    took: list[float] = []
    revisions: dict[str, str] = {}
    with _admin(server) as admin:
        # The revision in force at the start, by its name.
        revisions[admin.reload()] = "one"
        for number in range(reloads):
            variant = VARIANTS[(number + 1) % 2]
            turn(volume, variant)
            begun = time.monotonic()
            revision = admin.reload()
            took.append(1e3 * (time.monotonic() - begun))
            if revisions.setdefault(revision, variant) != variant:
                raise BenchError(f"revision {revision:.12} was both variants")
            time.sleep(PAUSE_S)
    return took, revisions


def _judge(load: Load, revisions: dict[str, str], figures: Figures) -> None:
    """Every answer must be the one that its own revision gives."""
    if load.error is not None:
        figures.wrong.append(f"the load ended: {load.error}")
    for name, witness in load.witnesses.items():
        if witness.failed:
            figures.wrong.append(f"{witness.failed} calls of caller {name} had no answer")
        if unread := witness.answered - sum(witness.seen.values()):
            figures.wrong.append(f"{unread} answers to caller {name} named no reason")
        for (revision, reason), count in sorted(witness.seen.items()):
            variant = revisions.get(revision, "unknown")
            figures.by_revision[variant] = figures.by_revision.get(variant, 0) + count
            expected = "allowed" if variant == name else "policy_denied"
            if variant == "unknown" or reason != expected:
                figures.wrong.append(
                    f"{count} answers to caller {name}: `{reason}` by revision {revision:.12} ({variant}), "
                    f"expected `{expected}`"
                )


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    at = {"p50": len(values) // 2, "p99": len(values) * 99 // 100, "max": len(values) - 1}
    return {name: round(values[place], 2) for name, place in at.items()}


# ---- for the command line ---------------------------------------------------------------------------------


def _say(figures: Figures) -> Iterator[str]:
    rate = figures.during_reloads / figures.seconds
    yield f"{figures.reloads} reloads of {figures.policies} policies in {figures.seconds:.1f} s"
    yield f"  a reload, asked for until in force   {_line(figures.reload_ms)}"
    yield f"  {figures.during_reloads} answers meanwhile, {rate:.0f} a second"
    yield f"  an answer while nothing is reloaded  {_line(figures.calm_ms)}"
    yield f"  an answer while reloading            {_line(figures.storm_ms)}"
    yield "  by revision: " + ", ".join(
        f"{name} {count}" for name, count in sorted(figures.by_revision.items())
    )
    yield from (f"WRONG: {wrong}" for wrong in figures.wrong)
    yield f"  build: {_core.BUILD_PROFILE}"
    if not figures.wrong:
        yield f"  every one of {figures.answers} answers is the one that its revision gives"


def _line(spread: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g} ms" for name, value in spread.items())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Reloads under load: every answer is judged by its revision."
    )
    parser.add_argument("--reloads", type=int, default=RELOADS, help=f"how many ({RELOADS})")
    parser.add_argument("--policies", type=int, default=POLICIES, help=f"in tens ({POLICIES})")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser.parse_args()


def main() -> int:
    """Exit status 1 if any answer was wrong."""
    arguments = _arguments()
    with contextlib.ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signalwarden-bench-")))
        try:
            figures = run(where, reloads=arguments.reloads, policies=arguments.policies)
        except (BenchError, SignalwardenError, ValueError) as error:
            print(f"reload_storm: {error}", file=sys.stderr)
            return ERROR
    shown: dict[str, Any] = asdict(figures)
    print(json.dumps(shown) if arguments.json else "\n".join(_say(figures)))
    return FAILED if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
