"""Directories and servers of other sizes: so many policies, signals in a decision, live values, principals."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING, Any, Final

from bench import cases, directory, stage
from signalwarden import starter
from signalwarden.decision_log import now_us, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from bench.stage import Server

__all__ = ["of_live", "of_policies", "of_principals", "of_signals", "of_threads", "principals"]

START_S: Final = 600.0
"""A hundred thousand policies are parsed and checked before the doors open."""
BATCH: Final = 1_000
"""Values in one publication."""
FAST: Final = "signals: {max_rate: 1000000}\n"
"""A million values are published before anything is measured."""


@contextlib.contextmanager
def of_policies(folder: Path, core: int | None, front: str, number: int) -> Iterator[Server]:
    """The usual directory with so many policies, ten of them in play, the others ten to an action."""
    made = directory.make(folder / "directory", policies=number, influence="none", front=front)
    with _served(made, core) as server:
        stage.publish(server, directory.signals_body())
        yield server


@contextlib.contextmanager
def of_threads(folder: Path, core: int | None, front: str, number: int) -> Iterator[Server]:
    """The usual directory, its native front door with so many threads."""
    made = directory.make(folder / "directory", influence="none", front=front, threads=number)
    with _served(made, core) as server:
        stage.publish(server, directory.signals_body())
        yield server


@contextlib.contextmanager
def of_live(folder: Path, core: int | None, front: str, number: int) -> Iterator[Server]:
    """The usual directory, with so many values held, most of them of others than who asks."""
    made = directory.make(folder / "directory", influence="none", front=front)
    _append(made, FAST)
    with _served(made, core) as server:
        others = max(0, number - len(directory.SIGNALS))
        for numbers in _batches(range(others)):
            subjects = (f"{directory.PRINCIPAL}-{n}" for n in numbers)
            stage.publish(server, _body((subject, {"device_trust": 4}) for subject in subjects))
        stage.publish(server, directory.signals_body())
        yield server


def principals(number: int) -> list[str]:
    """So many callers."""
    return [f"spiffe://prod.example/ns/payments/sa/agent-{n:06d}" for n in range(number)]


@contextlib.contextmanager
def of_principals(folder: Path, core: int | None, front: str, number: int) -> Iterator[Server]:
    """The usual directory, with so many principals that each have their twelve values."""
    made = directory.make(folder / "directory", influence="none", front=front)
    callers = principals(number)
    (made.directory / "entities.json").write_text(directory.entities_json(callers), encoding="utf-8")
    _append(made, FAST)
    values = {name: value for name, (_, _, value) in directory.SIGNALS.items()}
    with _served(made, core) as server:
        for some in _batches(callers, BATCH // len(values)):
            stage.publish(server, _body((caller, values) for caller in some))
        yield server


@contextlib.contextmanager
def of_signals(folder: Path, core: int | None, front: str, number: int) -> Iterator[Server]:
    """One permit that reads so many signals, and one forbid: a directory of its own."""
    made = _signals_directory(folder / "directory", front, number)
    with _served(made, core) as server:
        stage.publish(server, _body([(directory.PRINCIPAL, dict.fromkeys(_names(number), True))]))
        yield server


def _names(number: int) -> list[str]:
    return [f"fact_{n:02d}" for n in range(number)]


def _signals_directory(where: Path, front: str, number: int) -> directory.Made:
    token, digest = starter.new_token()
    names = _names(number)
    holds = " && ".join(f"context.signals has {name} && context.signals.{name}" for name in names)
    limit = f"context.request.args has amount && context.request.args.amount > {directory.FORBIDDEN_AMOUNT}"
    policies = [
        directory.policy("permit", "all-facts", "transfer.create", holds),
        directory.policy("forbid", "transfers-amount", "transfer.create", limit),
    ]
    contracts = (directory.contract(name, "bool", "grant", ["transfer.create"]) for name in names)
    files = {
        "signalwarden.yaml": directory.settings_yaml(digest, "none", front),
        "routes.yaml": f"routes:\n{directory.ROUTE}default: deny\n",
        "signals.yaml": "signals:\n" + "".join(contracts),
        "entities.cedarschema": "entity Workload { owner: String };\nentity Account;\n",
        "entities.json": directory.entities_json(),
        "policies/transfers.cedar": "\n".join(policies),
    }
    for name, text in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory.Made(where, token)


def _served(made: directory.Made, core: int | None) -> contextlib.AbstractContextManager[Server]:
    return stage.served(made, core, start_s=START_S)


def _append(made: directory.Made, lines: str) -> None:
    with (made.directory / "signalwarden.yaml").open("a", encoding="utf-8") as file:
        file.write(lines)


def _batches(of: Iterable[Any], size: int = BATCH) -> Iterator[list[Any]]:
    endless = iter(of)
    while some := list(itertools.islice(endless, size)):
        yield some


def _body(values: Iterable[tuple[str, Mapping[str, Any]]]) -> bytes:
    observed = rfc3339(now_us())
    signals = [
        {"name": name, "subject": subject, "value": value, "observed_at": observed}
        for subject, named in values
        for name, value in named.items()
    ]
    return json.dumps({"signals": signals}).encode()


def cases_of(callers: list[str]) -> Iterator[cases.Case]:
    """A transfer of each caller."""
    for number, caller in enumerate(callers):
        path = f"/v1/accounts/{number}/transfers?amount={100 + number % 1_000}"
        yield cases.Case(f"caller {number}", path, True, "allowed", principal=caller)
