"""Settings of the decision log's further sinks: what reads on from its files, and sends them where.

One model for all kinds, so that each key has one line in the documentation; which keys a kind takes, `sink_checks`
says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from signalwarden.otlp import Endpoint, OtlpSettings, otlp_checks
from signalwarden.slips import Slip
from signalwarden.values import Duration, FilePath, Strict, Url, bad_value, span_s, span_text, word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MAX_SINKS", "SinkSettings", "sink_checks"]

MAX_SINKS: Final = 8
"""Each has a thread, and one batch in memory."""
LONGEST_S: Final = span_s("1m")
"""What takes longer than that is not answered any more."""

KINDS: Final = ("stdout", "otlp", "http")
FORMATS: Final = ("jsonl", "opa", "ocsf")
TAKES: Final[Mapping[str, frozenset[str]]] = {
    "stdout": frozenset({"format"}),
    "otlp": frozenset({"endpoint", "ca_file", "cert", "key", "headers_file", "timeout"}),
    "http": frozenset({"url", "format", "ca_file", "headers_file", "timeout"}),
}
"""The keys that one kind has and another has not."""
NEEDS: Final = {"otlp": "endpoint", "http": "url"}

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        expected = "a name of lower case letters, digits and `-`, 32 at most, that begins with a letter"
        raise bad_value(f"expected {expected}, found `{text}`")
    return text


def _waiting(seconds: float) -> float:
    if seconds > LONGEST_S:
        raise bad_value(f"expected at most {span_text(LONGEST_S)}, found {span_text(seconds)}")
    return seconds


class SinkSettings(Strict):
    """A further sink."""

    kind: Annotated[Literal["stdout", "otlp", "http"], word(KINDS)] = Field(
        description="`stdout`, a collector of OpenTelemetry (`otlp`), or a server that takes batches (`http`)"
    )
    name: (
        Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME.pattern})]
        | None
    ) = Field(default=None, description="what its cursor and its metrics are called; without it its kind")
    required: bool = Field(
        default=True,
        description="what it has not taken is not pruned; `false`: it may lose what retention prunes",
    )
    format: Annotated[Literal["jsonl", "opa", "ocsf"] | None, word(FORMATS)] = Field(
        default=None, description="what it is sent, but for `otlp`"
    )
    endpoint: Endpoint | None = Field(default=None, description="of a collector, with `otlp`")
    url: Url | None = Field(default=None, description="where batches are posted, with `http`")
    ca_file: FilePath | None = Field(default=None, description="the only authorities that are trusted for it")
    cert: FilePath | None = Field(default=None, description="our certificate, with `otlp`")
    key: FilePath | None = Field(default=None, description="its private key")
    headers_file: FilePath | None = Field(default=None, description="headers of each call, such as a token")
    timeout: Annotated[Duration, AfterValidator(_waiting)] = Field(
        default=span_s("10s"), description="how long one call may take", json_schema_extra={"default": "10s"}
    )

    @property
    def called(self) -> str:
        """Its name, given or not."""
        return self.name or self.kind

    @property
    def written_as(self) -> Literal["jsonl", "opa", "ocsf"]:
        """The format, given or not."""
        return self.format or ("opa" if self.kind == "http" else "jsonl")

    def otlp(self) -> OtlpSettings:
        """How its collector is reached."""
        keys = ("endpoint", "ca_file", "cert", "key", "headers_file", "timeout")
        return OtlpSettings.model_validate({key: getattr(self, key) for key in keys})


def sink_checks(sinks: list[Any]) -> Iterator[Slip]:
    """Every mistake of `decision_log.sinks` that takes two keys to see."""
    seen: set[object] = set()
    for at, sink in enumerate(sinks):
        kind = sink.get("kind") if isinstance(sink, dict) else None
        if kind not in KINDS:
            continue  # the model says so
        loc = ("decision_log", "sinks", at)
        name = sink.get("name") or kind
        if name in seen:
            key = "name" if sink.get("name") else "kind"
            yield Slip((*loc, key), "duplicate", f"another sink is called `{name}`, give each a `name`")
        seen.add(name)
        needed = NEEDS.get(kind)
        if needed is not None and sink.get(needed) is None:
            yield Slip((*loc, needed), "missing_key", f"missing, a sink of kind `{kind}` needs it")
        known = frozenset[str]().union(*TAKES.values())
        for key in sorted(known & sink.keys() - TAKES[kind]):
            yield Slip((*loc, key), "bad_key", f"a sink of kind `{kind}` has no `{key}`")
        if kind == "otlp":
            yield from otlp_checks(loc, sink)
        elif (
            kind == "http" and str(sink.get("url")).startswith("http://") and sink.get("ca_file") is not None
        ):
            yield Slip((*loc, "ca_file"), "bad_value", "there is no TLS with a `url` of `http://`")
