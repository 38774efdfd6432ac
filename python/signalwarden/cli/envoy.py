"""Verbs about Envoy."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from signalwarden.cli.options import HERE, SERVER, ConfigOption

__all__ = ["add", "group"]

group = typer.Typer(no_args_is_help=True, help="Configuration for Envoy.")


class EnvoyKind(StrEnum):
    """Where the Envoy of `envoy config` stands."""

    SIDECAR = "sidecar"
    GATEWAY = "gateway"


def add(root: typer.Typer) -> None:
    """Adds these verbs."""
    root.add_typer(group, name="envoy", rich_help_panel=SERVER)


@group.command("config")
def config_for(
    kind: Annotated[
        EnvoyKind, typer.Option("--kind", help="Beside one workload, or in front of many.")
    ] = EnvoyKind.SIDECAR,
    traces: Annotated[
        str | None,
        typer.Option(
            "--traces",
            metavar="HOST:PORT",
            help="Envoy sends spans to this collector of OpenTelemetry (OTLP over gRPC), and decisions join them.",
        ),
    ] = None,
    config: ConfigOption = HERE,
) -> None:
    """Print an Envoy configuration for this directory, hardened and commented.

    Example: `signalwarden envoy config --kind gateway > envoy.yaml`
    """
    from signalwarden import envoy_config as envoy

    options = envoy.Options(traces=envoy.host_and_port(traces) if traces else None)
    typer.echo(envoy.render(config, kind.value, options), nl=False)
