"""`signals approve`: an approver signs a contract, or its removal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signalwarden.cli.options import HERE, ConfigOption, JsonOption, read_input
from signalwarden.cli.signals import group
from signalwarden.decision_log import now_us
from signalwarden.saying import say
from signalwarden.terminal import console, print_json

__all__ = ["add"]


def add(_root: typer.Typer) -> None:
    """Adds this verb below `signals`."""
    group.command("approve")(approve)


def approve(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal, as in signals.yaml.")],
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="Your Ed25519 private key, PEM, without a password.")
    ],
    approver: Annotated[str, typer.Option("--as", metavar="ID", help="You, as the contract names you.")],
    removal: Annotated[
        bool, typer.Option("--removal", help="Approve that the contract is taken out of the register.")
    ] = False,
    config: ConfigOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Approve a contract as it stands in the directory: makes or extends approvals/NAME.json.

    Read `signalwarden diff` first. Any change of the contract needs a new approval.

    Example: `signalwarden signals approve device_trust --key alice.pem --as alice@prod.example`
    """
    from signalwarden import approve as approving

    done = approving.approve(
        config,
        name,
        approver=approver,
        key=read_input(str(key)),
        key_name=str(key),
        removal=removal,
        now_us=now_us(),
    )
    if as_json:
        print_json({"signal": name, "digest": done.digest, "file": str(done.file), "note": done.note})
    else:
        console().print(
            f"{approver} approves {name}: {done.digest} in {done.file}", highlight=False, markup=False
        )
    if done.note:
        say(done.note)
