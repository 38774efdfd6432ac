"""Verbs on the integrity of the decision log: its key, its verification, proofs that a record is in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalwarden.cli.options import FAILED, HERE, ConfigOption, JsonOption, read_input, settings_of
from signalwarden.errors import BadInputError
from signalwarden.saying import count, say
from signalwarden.terminal import console, print_json, reading_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalwarden.decision_log.integrity.notes import Verifier
    from signalwarden.decision_log.integrity.verify import Report

__all__ = ["add"]

MANY = 10_000
"""Lines from which on a rate says something."""

KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="VERIFIER",
        help="A key that counts, as `log key` prints it, or a file of such lines. Else those of the directory.",
    ),
]


def add(group: typer.Typer) -> None:
    """Adds these verbs."""
    group.command("verify")(verify_log)
    group.command("prove")(prove_record)
    group.command("key")(show_key)


def verify_log(
    key: KeyOption = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint", metavar="FILE", help="An earlier checkpoint: is it the beginning of this log?"
        ),
    ] = None,
    proof: Annotated[
        Path | None,
        typer.Option("--proof", metavar="FILE", help="Check this proof alone; reads no log."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="A copy of a log in place of the directory's, its tree beside it; with --key.",
        ),
    ] = None,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Verify that the decision log is what was written: every line, against the signed tree.

    Reads the files of the directory; needs no token and no running server. Exit status 1 if anything is wrong.

    Example: `signalwarden log verify --checkpoint last-week.checkpoint`

    Example: `signalwarden log verify --log evidence/decisions.jsonl --key log.vkey`
    """
    from signalwarden.decision_log.integrity import verify
    from signalwarden.decision_log.integrity.log_keys import log_name, public_keys

    if proof is not None:
        _verify_proof(proof, key, config, as_json=as_json)
        return
    given = _keys(key) if key else []
    older = [(str(file), read_input(str(file))) for file in checkpoint or ()]
    if log is not None:
        if not given:
            raise BadInputError("a copy of a log is verified by its key: give it with --key VERIFIER")
        path, name = log, given[0].name
    else:
        settings = settings_of(config)
        path, keys = settings.log_path(config), settings.keys_path(config) / "log"
        name = log_name(settings.trust_domain, path)
        if not key:
            given = public_keys(keys, name)
            older += verify.claims_of(keys, name)
        if not given:
            raise BadInputError(f"`{keys}` has no key of the log: give one with --key VERIFIER")
    with reading_bar(verify.bytes_of(path), what="verifying") as progress:
        report = verify.verify(path, name=name, given=given, older=older, progress=progress)
    if as_json:
        print_json(report.document())
    else:
        _print(report)
    if not report.good:
        raise typer.Exit(FAILED)


def prove_record(
    record: Annotated[str, typer.Argument(metavar="ID", help="The `decision_id` of a record, or its id.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write it there, not to standard output."),
    ] = None,
    config: ConfigOption = HERE,
) -> None:
    """Prove that a record is in the log: record, way to the root, signed checkpoint, in one text.

    Whoever has the key checks it with `log verify --proof`, without the log.

    Example: `signalwarden log prove 019a4d2e-e225-7eba-82f3-6812fbaf3409 --out decision.tlog-proof`
    """
    from signalwarden.decision_log.integrity.proofs import prove

    text = prove(settings_of(config).log_path(config), record).encode()
    if out is None:
        typer.echo(text.decode(), nl=False)
        return
    try:
        out.write_bytes(text)
    except OSError as error:
        raise BadInputError(f"`{out}` can't be written: {(error.strerror or str(error)).lower()}") from error


def show_key(config: ConfigOption = HERE, as_json: JsonOption = False) -> None:
    """Print the public key of the log, for whoever verifies: it signs checkpoints.

    Example: `signalwarden log key > signalwarden.vkey`
    """
    from signalwarden.decision_log.integrity.log_keys import log_name, public_keys

    settings = settings_of(config)
    path, keys = settings.log_path(config), settings.keys_path(config) / "log"
    found = public_keys(keys, log_name(settings.trust_domain, path))
    if not found:
        raise BadInputError(f"`{keys}` has no key of the log: its server makes one when it starts")
    if as_json:
        print_json({"name": found[0].name, "key": str(found[0])})
    else:
        typer.echo(str(found[0]))


def _keys(texts: Sequence[str]) -> list[Verifier]:
    from signalwarden.decision_log.integrity.notes import Verifier

    lines: list[str] = []
    for text in texts:
        is_key = "+" in text and not Path(text).is_file()
        lines += [text] if is_key else read_input(text).decode(errors="replace").split("\n")
    found = [Verifier.parse(line) for line in lines if line.strip()]
    if not found:
        raise BadInputError(f"`{texts[0]}` has no verifier key in it")
    return found


def _verify_proof(file: Path, key: Sequence[str] | None, config: Path, *, as_json: bool) -> None:
    from signalwarden.decision_log.integrity.log_keys import Trust, log_name, public_keys
    from signalwarden.decision_log.integrity.proofs import Proof
    from signalwarden.decision_log.tail import clean

    if key:
        given = _keys(key)
        name = given[0].name
    else:
        settings = settings_of(config)
        name = log_name(settings.trust_domain, settings.log_path(config))
        given = public_keys(settings.keys_path(config) / "log", name)
    proof = Proof.parse(read_input(str(file)))
    try:
        checkpoint, by = proof.holds(Trust(name, given, ()))
    except BadInputError as error:
        say(f"`{file}` proves nothing: {error}")
        if as_json:
            print_json({"good": False, "why": str(error)})
        raise typer.Exit(FAILED) from error
    if as_json:
        said: dict[str, Any] = {"good": True, "index": proof.index, "size": checkpoint.size, "key": by.short}
        print_json({**said, "origin": checkpoint.origin, "record": proof.line.decode(errors="replace")})
        return
    out = console()
    out.print(clean(proof.line.decode(errors="replace")))
    out.print(
        f"good: record {proof.index} of {checkpoint.size} of {clean(checkpoint.origin)}, signed by {by.short}"
    )


# ---------------------------------------------------------------- what is shown


def _print(report: Report) -> None:
    from signalwarden.decision_log.tail import clean

    out = console()
    for tree in report.trees:
        out.print(
            f"{clean(tree.origin)}: {count(tree.size, 'record')} signed by {tree.key or 'nobody who counts'}"
        )
        for first, last in tree.pruned:
            out.print(f"  pruned: records {first} to {last}, of which the tree has the hashes")
        if tree.unsealed:
            out.print(f"  not signed yet: {count(tree.unsealed, 'line')} after the checkpoint")
        if tree.unchecked:
            out.print(f"  can't be checked: {count(tree.unchecked, 'line')}, their tiles are damaged")
    for note in report.notes:
        out.print(f"note: {clean(note)}")
    for finding in report.findings:
        out.print(clean(finding), style="red")
    if report.more:
        out.print(f"and {report.more} more")
    agreed = sum(tree.agreed for tree in report.trees)
    rate = f", {round(report.lines / report.seconds):,} lines/s" if report.lines >= MANY else ""
    verdict = "good" if report.good else f"BROKEN, {count(len(report.findings) + report.more, 'finding')}"
    read = f"{count(report.lines, 'line')} in {count(report.files, 'file')}"
    out.print(
        f"{verdict}: {agreed} of {read} are what was signed{rate}",
        style="green" if report.good else "bold red",
    )
