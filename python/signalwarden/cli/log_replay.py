"""Verbs that make recorded decisions again: with another directory, with other signals, with each signal lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.table import Table
from rich.text import Text

from signalwarden.cli import completing
from signalwarden.cli.log_options import Chosen, LogOption, chosen_files, with_filters
from signalwarden.cli.options import FAILED, HERE, ConfigOption, JsonOption, loaded_of
from signalwarden.decision_log.tail import clean
from signalwarden.errors import BadInputError, LogError
from signalwarden.saying import count, say
from signalwarden.terminal import console, print_json, reading_bar

if TYPE_CHECKING:
    from rich.console import Console

    from signalwarden.config import Loaded
    from signalwarden.log_reading.brittleness import Brittleness
    from signalwarden.log_reading.flips import Flip, Flips
    from signalwarden.log_reading.records import Reader
    from signalwarden.log_reading.replaying import Change, Decider, Tally

__all__ = ["add"]

MAX_CALLERS: Final = 10

HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write one page with plots, which opens offline."),
]
EveryOption = Annotated[bool, typer.Option("--every", help="Print each flip on a line of its own, too.")]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", min=1, max=256, help="Threads.", show_default="one a processor"),
]


def add(group: typer.Typer) -> None:
    """Adds these verbs to the group `log`."""
    for name, verb in (("replay", replay), ("simulate", simulate), ("brittleness", brittleness)):
        group.command(name)(with_filters(verb))


def replay(
    chosen: Chosen,
    against: Annotated[
        Path,
        typer.Option("--against", metavar="DIR", help="The directory to decide with.", show_default=False),
    ],
    every: EveryOption = False,
    html: HtmlOption = None,
    jobs: JobsOption = None,
    log: LogOption = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Decide the recorded requests with another directory, and list every decision that ends otherwise.

    Signals are as they were recorded. `--json` prints a line for each flip, then one with the sums. Exit status 1 if
    anything flips, 2 if nothing could be read or decided.

    Example: `signalwarden log replay --against ../refunds-next --since 7d --html replay.html`
    """
    from signalwarden.log_reading import flips

    loaded = loaded_of(against)
    decider = _decider(loaded)
    with _reading(config, log, chosen) as (reader, want):
        sums, found = flips.again(reader, decider, loaded.described(), want, jobs)
        _each_flip(found, every=every, as_json=as_json)
    title = f"Replay against {against}"
    _tell_flips(sums, reader, html, title, f"revision {loaded.configuration.revision}", as_json=as_json)


def simulate(
    chosen: Chosen,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="SIGNAL", help="As if nobody had said it.", autocompletion=completing.signals),
    ] = None,
    stale: Annotated[
        list[str] | None,
        typer.Option("--stale", metavar="SIGNAL", help="As if it were too old.", autocompletion=completing.signals),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SIGNAL=VALUE", help="As if every source had said this.",
                     autocompletion=completing.signals),
    ] = None,
    every: EveryOption = False,
    html: HtmlOption = None,
    jobs: JobsOption = None,
    log: LogOption = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Say what would have happened to recorded requests, had a signal been lost, stale, or another one.

    Decided with the directory as it is, with and without the change: what flips is the change's doing alone.

    Example: `signalwarden log simulate --drop posture --set device_trust=2 --since 1d`
    """
    from signalwarden.log_reading import flips

    loaded = loaded_of(config)
    decider = _decider(loaded)
    changes = _changes(loaded.described(), drop or [], stale or [], values or [])
    with _reading(config, log, chosen) as (reader, want):
        sums, found = flips.simulated(reader, decider, changes, loaded.described(), want, jobs)
        _each_flip(found, every=every, as_json=as_json)
    told = ", ".join(_told(change) for change in changes)
    _tell_flips(
        sums,
        reader,
        html,
        f"Simulation: {told}",
        f"revision {loaded.configuration.revision}",
        as_json=as_json,
    )


def brittleness(
    chosen: Chosen,
    html: HtmlOption = None,
    jobs: JobsOption = None,
    log: LogOption = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show what hangs on each signal: allows that would be denied if its feed failed, and signals that never decided.

    Example: `signalwarden log brittleness --since 30d --html brittleness.html`
    """
    from signalwarden.log_reading import brittleness as hanging
    from signalwarden.log_reading.replay_pages import brittleness_page

    loaded = loaded_of(config)
    decider = _decider(loaded)
    with _reading(config, log, chosen) as (reader, want):
        found = hanging.brittleness(reader, decider, loaded.described(), want, jobs)
    _refuse_nothing(found.tally)
    if html is not None:
        _write(html, brittleness_page(found, "Brittleness", f"revision {loaded.configuration.revision}"))
    if as_json:
        print_json({**found.as_dict(), "lines_skipped": reader.faults.as_dict()})
    else:
        _show_brittleness(console(), found)
    _tell_left_out(found.tally, reader)


# ---- what goes in ---------------------------------------------------------------------------------------------


def _decider(loaded: Loaded) -> Decider:
    from signalwarden.log_reading.replaying import decider

    return decider(loaded.configuration)


@contextlib.contextmanager
def _reading(config: Path, log: list[Path] | None, chosen: Chosen) -> Iterator[tuple[Reader, Any]]:
    """The reader of the chosen files, with a bar while it reads, and what is wanted of them."""
    from signalwarden.log_reading.records import Reader

    filters = chosen.filters()
    want = filters.question() if chosen.any else None
    files = [file for file in chosen_files(config, log) if not filters.too_old(file)]
    with reading_bar(Reader(files).size, what="deciding") as progress:
        yield Reader(files, progress), want


def _changes(described: dict[str, Any], drop: list[str], stale: list[str], values: list[str]) -> list[Change]:
    types = {contract["name"]: contract["type"] for contract in described["signals"]}
    found: list[Change] = [{"name": _known(name, types, "--drop"), "drop": True} for name in drop]
    found += [{"name": _known(name, types, "--stale"), "state": "stale"} for name in stale]
    for given in values:
        name, equals, value = given.partition("=")
        if not equals:
            raise BadInputError(f"--set `{given}`: expected SIGNAL=VALUE, such as `device_trust=2`")
        found.append({"name": _known(name, types, "--set"), "value": _typed(value, types[name])})
    if not found:
        raise BadInputError("nothing to simulate: give --drop SIGNAL, --stale SIGNAL or --set SIGNAL=VALUE")
    return found


def _known(name: str, types: dict[str, str], option: str) -> str:
    from signalwarden.values import suggestion

    if name not in types:
        near = suggestion(name, list(types)) or ", see `signalwarden signals document` for those that are"
        raise BadInputError(f"{option} `{name}`: no signal of this name is registered{near}")
    return name


def _typed(value: str, kind: str) -> Any:
    """As the contract's type has it: words need no quotes."""
    if kind.startswith(("string", "enum")):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _told(change: Change) -> str:
    if "value" in change:
        return f"{change['name']} = {orjson.dumps(change['value']).decode()}"
    return f"{change['name']} {'lost' if change.get('drop') else 'stale'}"


# ---- what comes out -------------------------------------------------------------------------------------------


def _each_flip(found: Iterator[Flip], *, every: bool, as_json: bool) -> None:
    out = console()
    for flip in found:
        if as_json:
            print_json({"kind": "flip", **flip.as_dict()})
        elif every:
            out.print(_line(flip))


def _line(flip: Flip) -> Text:
    said = flip.as_dict()
    style = "bold red" if flip.direction == "widens" else "bold yellow"
    line = Text(no_wrap=True, overflow="ignore", end="")
    line.append(f"{flip.direction:<8}", style)
    asked = [said[key] or "-" for key in ("principal", "action", "resource")]
    reasons = f"{flip.was.reason} → {flip.now.reason}"
    for part in (said["time"], reasons, *asked, ", ".join(flip.policies), said["decision_id"]):
        line.append(f"  {clean(part)}")
    return line


def _tell_flips(
    sums: Flips, reader: Reader, html: Path | None, title: str, told: str, *, as_json: bool
) -> None:
    from signalwarden.log_reading.replay_pages import flips_page

    _refuse_nothing(sums.tally)
    if html is not None:
        _write(html, flips_page(sums, title, told))
    if as_json:
        print_json({"kind": "summary", **sums.as_dict(), "lines_skipped": reader.faults.as_dict()})
    else:
        _show_flips(console(), sums)
    _tell_left_out(sums.tally, reader)
    if sums.count:
        raise typer.Exit(FAILED)


def _refuse_nothing(tally: Tally) -> None:
    if (why := tally.none_decided()) is not None:
        raise LogError(why)


def _show_flips(out: Console, sums: Flips) -> None:
    widens, narrows = sums.by_direction["widens"], sums.by_direction["narrows"]
    out.print(Text(f"{count(sums.tally.decided, 'decision')} made again: {widens:,} denials would be allowed, "
                   f"{narrows:,} allows would be denied", "bold"))  # fmt: skip
    for group in sums.sorted_groups():
        style = "bold red" if group.direction == "widens" else "bold yellow"
        head = f"{group.count:,}  {clean(group.policy)}  {clean(group.signal)}"
        out.print(Text.assemble((f"\n{group.direction:<8}", style), head))
        for reasons, number in group.reasons.most_common():
            out.print(f"          {number:>7,}  {clean(reasons)}")
        _callers(out, group.callers.most_common(MAX_CALLERS))
        out.print(Text(f"          such as {', '.join(map(clean, group.examples))}", "dim"))
    if sums.otherwise:
        out.print(Text("\nsame outcome, another reason", "bold"))
        for (was, now), number in sums.otherwise.most_common():
            out.print(f"          {number:>7,}  {clean(was)} → {clean(now)}")


def _callers(out: Console, callers: Iterable[tuple[tuple[str, str], int]]) -> None:
    for (principal, action), number in callers:
        out.print(f"          {number:>7,}  {clean(principal)}  {clean(action)}")


def _show_brittleness(out: Console, found: Brittleness) -> None:
    from signalwarden.cli.charts import bar

    out.print(
        Text(f"{count(found.tally.decided, 'decision')} made again, {found.allowed:,} of them allow", "bold")
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("lost", "read by", "allows", "would be denied", ""):
        table.add_column(column, justify="left" if column in ("lost", "") else "right", no_wrap=True)
    for loss in found.losses:
        name = loss.scenario.name if loss.scenario.kind == "signal" else f"all of {loss.scenario.name}"
        table.add_row(clean(name), f"{loss.read:,}", f"{loss.allowed:,}", f"{loss.denied:,}",
                      Text(bar(loss.denied, loss.allowed), "red"))  # fmt: skip
    out.print()
    out.print(table)
    for loss in found.losses:
        if loss.callers:
            out.print(Text(f"\nwithout {clean(loss.scenario.name)}", "bold"))
            for (principal, action), number in loss.callers.most_common(MAX_CALLERS):
                of = loss.allowed_of[principal, action]
                out.print(f"          {number:>7,} of {of:,}  {clean(principal)}  {clean(action)}")
            if len(loss.callers) > MAX_CALLERS:
                out.print(Text(f"          … and {len(loss.callers) - MAX_CALLERS} more: see --json", "dim"))
    for names, words in (
        (found.never_decisive, "read, and never decisive in this period"),
        (found.unread, "never read in this period"),
        (found.steady, "said by the directory itself, can't fail"),
    ):
        if names:
            out.print(Text.assemble((f"\n{words}: ", "bold"), clean(", ".join(names))))


def _tell_left_out(tally: Tally, reader: Reader) -> None:
    for why, number in tally.undecidable.most_common():
        say(f"{count(number, 'decision')} can't be made again: {clean(why)}")
    for why, number in tally.bad.most_common():
        say(f"{count(number, 'line')} the core can't read: {clean(why)}")
    for told in reader.faults.sentences():
        say(told)


def _write(file: Path, page: str) -> None:
    # As private as the log that it tells of.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w", encoding="utf-8") as out:
            out.write(page)
    except OSError as error:
        raise BadInputError(f"`{file}` can't be written: {(error.strerror or str(error)).lower()}") from error
    say(f"wrote {file}")
