"""What `signalwarden.yaml` may say of traces: where they go, and of which requests there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema

from signalwarden.otlp import OtlpSettings, otlp_checks
from signalwarden.slips import Slip, map_of
from signalwarden.values import Strict, bad_value, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PARENT", "TelemetrySettings", "telemetry_checks"]

PARENT: Final = "parent"


def _sample(value: object) -> str | float:
    if value == PARENT:
        return PARENT
    # A boolean is a number, too, for Python.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    shown = f"`{value}`" if isinstance(value, str | int | float) else kind_of(value)
    raise bad_value(f"expected `{PARENT}`, or a share of all checks above 0 and up to 1, found {shown}")


Sample = Annotated[
    str | float,
    PlainValidator(_sample),
    WithJsonSchema({"anyOf": [{"const": PARENT}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]}),
]


class TelemetrySettings(Strict):
    """Traces: one span for each check, made from its record."""

    otlp: OtlpSettings | None = Field(
        default=None, description="the collector that spans go to; without it there are none"
    )
    sample: Sample = Field(
        default=PARENT,
        description="of which checks: those whose trace is sampled (`parent`), or this share of all",
    )


def telemetry_checks(raw: Mapping[str, Any]) -> Iterator[Slip]:
    """Every mistake of `telemetry` that takes two keys to see."""
    telemetry = map_of(raw, "telemetry")
    if "otlp" in telemetry:
        yield from otlp_checks(("telemetry", "otlp"), map_of(telemetry, "otlp"))
    elif "sample" in telemetry:
        yield Slip(("telemetry", "otlp"), "missing_key", "missing, `sample` says of which checks it is told")
