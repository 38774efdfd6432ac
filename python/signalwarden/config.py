"""The configuration directory: from the text of `signalwarden.yaml` to settings, and the load of the whole in one pass.

Everything is strict. A mistake becomes a finding with file, line, key, what was expected and the nearest
known key; a value whose feature is not built yet is a mistake that says so. What the core reads (routes,
register, entities, policies) passes through here as bytes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from signalwarden import _core, approvers
from signalwarden.cross_checks import cross_checks
from signalwarden.directory import SETTINGS_FILE, Directory
from signalwarden.errors import ConfigurationError, FindingLike, Problem, is_error, sorted_findings
from signalwarden.settings import (
    ClientSettings,
    DecisionLogSettings,
    Listen,
    Right,
    Settings,
    SignalsSettings,
)
from signalwarden.slips import Slip, list_of
from signalwarden.values import Address, is_trust_domain, kind_of, one_of, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "SETTINGS_FILE",
    "Address",
    "ClientSettings",
    "DecisionLogSettings",
    "Directory",
    "Listen",
    "Loaded",
    "Right",
    "Settings",
    "SignalsSettings",
    "json_schema",
    "judge",
    "judge_described",
    "load",
    "read_settings",
]

SCHEMA_FILE = "docs/schema/signalwarden.schema.json"


# ---------------------------------------------------------------- from text to settings


def read_settings(
    text: str, *, now: datetime, file: str = SETTINGS_FILE
) -> tuple[Settings | None, list[FindingLike]]:
    """Reads the settings; None if any finding is an error. `now` tells which tokens have expired."""
    document = _core.parse_yaml(file, text)
    findings: list[FindingLike] = list(document.findings)
    if document.json is None:
        if not any(map(is_error, findings)):
            findings.append(Problem("error", file, 0, 0, "wrong_type", "expected a map, found nothing"))
        return None, findings
    raw = orjson.loads(document.json)
    if not isinstance(raw, dict):
        message = f"expected a map with at least `trust_domain`, found {kind_of(raw)}"
        return None, [*findings, Problem("error", file, 0, 0, "wrong_type", message)]
    slips = [*_model_slips(document.json), *cross_checks(raw, now)]
    findings += [_problem(slip, file, document.places) for slip in slips]
    if any(map(is_error, findings)):
        return None, findings
    return Settings.model_validate_json(document.json), findings


def _problem(slip: Slip, file: str, places: Mapping[str, tuple[int, int]]) -> Problem:
    """Finds the nearest place that the file has: a missing key is placed at its map."""
    loc = slip.loc
    while loc and _pointer(loc) not in places:
        loc = loc[:-1]
    line, column = places.get(_pointer(loc), (0, 0)) if loc else (0, 0)
    name = _dotted(slip.loc)
    message = f"`{name}`: {slip.message}" if name else slip.message
    return Problem(slip.severity, file, line, column, slip.code, message)


def _pointer(loc: Sequence[str | int]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in loc)


def _dotted(loc: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return text.removeprefix(".")


def _model_slips(text: bytes) -> Iterator[Slip]:
    try:
        Settings.model_validate_json(text)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=True):
            if detail["type"] != "too_short" or not detail.get("input"):  # else its entries were the mistake
                yield _slip(detail)


def _slip(detail: ErrorDetails) -> Slip:
    """One error of the models in the words of this house."""
    loc, kind, found = detail["loc"], detail["type"], detail.get("input")
    context = detail.get("ctx", {})
    match kind:
        case "bad_value" | "not_built":
            return Slip(loc, kind, detail["msg"])
        case "extra_forbidden":
            known = _known_keys(loc[:-1])
            others = f", expected {one_of(known)}" if known else ", no key is known here"
            return Slip(loc, "unknown_key", f"unknown key{suggestion(str(loc[-1]), known) or others}")
        case "missing":
            return Slip(loc, "missing_key", "missing, the key is required")
        case "too_short":
            return Slip(
                loc, "bad_value", f"expected at least {context.get('min_length', 1)} entry, found none"
            )
        case "greater_than_equal":
            return Slip(loc, "bad_value", f"expected at least {context.get('ge')}, found {found}")
        case "less_than_equal":
            return Slip(loc, "bad_value", f"expected at most {context.get('le')}, found {found}")
    expected = _EXPECTED.get(kind)
    if expected is None:
        return Slip(loc, "bad_value", detail["msg"].lower())
    return Slip(loc, "wrong_type", f"expected {expected}, found {kind_of(found)}")


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "literal_error": "text",
    "enum": "text",
    "tuple_type": "a list",
    "model_type": "a map",
    "model_attributes_type": "a map",
}


def _known_keys(loc: Sequence[str | int]) -> list[str]:
    """The keys that the map at this place may have."""
    found = _below(Settings, loc)
    return list(found.model_fields) if found else []


def _below(annotation: object, loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The model at a place: through lists, maps and alternatives, in which a step may be a tag or an index."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return annotation
        field = annotation.model_fields.get(str(loc[0]))
        return _below(field.annotation, loc[1:]) if field else None
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (tuple, list, dict) and loc:
        return _below(inner[-1] if origin is dict else inner[0], loc[1:])
    found = (_below(part, loc) for part in inner)
    return next((model for model in found if model is not None), None)


# ---------------------------------------------------------------- the whole directory


@dataclass(frozen=True, slots=True)
class Loaded:
    """A directory without errors."""

    root: Path
    settings: Settings
    configuration: _core.Configuration
    warnings: tuple[FindingLike, ...]
    digest: str
    """Hex SHA-256 over all its files: two of one digest are one directory."""
    approvals: Mapping[str, bytes]
    """The approvals files, by signal."""

    def described(self) -> dict[str, Any]:
        """`Configuration.describe()`, read anew: it is large, so it is not kept."""
        described: dict[str, Any] = orjson.loads(self.configuration.describe())
        return described

    @property
    def unenforced(self) -> list[str]:
        """Labels of routes with `enforce: false`: each has a warning at its place."""
        return [f"{w.file}:{w.line}" for w in self.warnings if w.code == "unenforced_route"]

    @property
    def ungoverned(self) -> str | None:
        """One sentence if policies see whole requests."""
        return next((w.message for w in self.warnings if w.code == "ungoverned"), None)


UNKNOWN_TRUST_DOMAIN = "unknown.invalid"
"""Stands in where `trust_domain` is itself a mistake, so that the other files are still checked."""


def load(path: Path | str, now_us: int) -> Loaded:
    """Loads a directory. Raises ConfigurationError with every mistake of all its files, found in one pass."""
    return judge(Directory.read(Path(path)), now_us)


def judge(directory: Directory, now_us: int, *, unapproved: bool = False) -> Loaded:
    """`load` for a directory that has been read. `unapproved`: whoever is to approve a contract has not done so yet."""
    return judge_described(directory, now_us, unapproved=unapproved)[0]


def judge_described(
    directory: Directory, now_us: int, *, unapproved: bool = False
) -> tuple[Loaded, dict[str, Any]]:
    """`judge`, and `Loaded.described`, which it reads itself: a hundred thousand policies take two seconds, and memory
    that is to be let go of soon."""
    findings: list[FindingLike] = list(directory.findings)
    settings: Settings | None = None
    text = directory.text(SETTINGS_FILE)
    if isinstance(text, str):
        settings, more = read_settings(text, now=datetime.fromtimestamp(now_us / 1e6, UTC))
        findings += more
    else:
        findings += text
    if not directory.readable:
        raise ConfigurationError(sorted_findings(findings))
    for_core = settings or Settings.stand_in(*_domains(text))
    configuration: _core.Configuration | None = None
    described: dict[str, Any] = {}
    try:
        configuration = _core.Configuration.load(
            directory.core_files(), settings=for_core.for_core(), now_us=now_us
        )
        findings += configuration.warnings
        described = orjson.loads(configuration.describe())
        contracts = described["signals"]
        if settings is not None:
            findings += _unauthenticated(settings, contracts, directory)
        if not unapproved:
            # Each contract that names approvers has their signatures over what it says now.
            findings += approvers.findings(contracts, directory.approvals())
    except ConfigurationError as error:
        findings += error.findings
    if settings is None or configuration is None or any(map(is_error, findings)):
        raise ConfigurationError(sorted_findings(findings))
    warnings = tuple(sorted_findings(findings))
    loaded = Loaded(
        directory.root, settings, configuration, warnings, directory.digest, directory.approvals()
    )
    return loaded, described


def _unauthenticated(
    settings: Settings, contracts: Sequence[Mapping[str, Any]], directory: Directory
) -> Iterator[Problem]:
    """Push sources whose publisher nobody could be: no token in `clients`, and no door that takes
    certificates."""
    if settings.listen.signals is not None:
        return
    by_svid = "admin" in settings.tls.doors or settings.identity.admin_audience is not None
    known = {
        client.id
        for client in settings.clients
        if Right.PUBLISH in client.may and (by_svid or client.token_sha256 is not None)
    }
    strange = [
        (contract, at, source["publisher"])
        for contract in contracts
        for at, source in enumerate(contract["sources"])
        if source["kind"] == "push" and source["publisher"] not in known
    ]
    if not strange:
        return
    text = directory.text("signals.yaml")
    places = _core.parse_yaml("signals.yaml", text).places if isinstance(text, str) else {}
    for contract, at, publisher in strange:
        line, column = places.get(f"/signals/{contract['name']}/sources/{at}", (contract["line"], 1))
        message = (
            f"`{contract['name']}`: nobody can authenticate as its publisher `{publisher}`: expected an entry of "
            "`clients` in signalwarden.yaml with the right `publish`, or `listen.signals` for its certificate"
        )
        yield Problem("error", "signals.yaml", line, column, "unauthenticated_source", message)


def _domains(text: object) -> tuple[str, tuple[str, ...]]:
    """What can be had of settings that have mistakes, so that other files are judged by the right names."""
    raw: object = None
    if isinstance(text, str) and (content := _core.parse_yaml(SETTINGS_FILE, text).json) is not None:
        raw = orjson.loads(content)
    if not isinstance(raw, dict):
        return UNKNOWN_TRUST_DOMAIN, ()
    domain = raw.get("trust_domain")
    good = isinstance(domain, str) and is_trust_domain(domain)
    others = [
        name for name in list_of(raw, "federates_with") if isinstance(name, str) and is_trust_domain(name)
    ]
    return (domain if isinstance(domain, str) and good else UNKNOWN_TRUST_DOMAIN), tuple(others)


# ---------------------------------------------------------------- JSON Schema


def json_schema() -> bytes:
    """JSON Schema of `signalwarden.yaml`, for editors; generated, never written by hand."""
    schema = Settings.model_json_schema(mode="validation")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": SETTINGS_FILE}
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _write_schema(arguments: Sequence[str]) -> None:
    """`python -m signalwarden.config [FILE]` writes the schema."""
    if any(argument.startswith("-") for argument in arguments):
        raise SystemExit("python -m signalwarden.config [FILE]: writes the JSON Schema of signalwarden.yaml")
    target = Path(arguments[0] if arguments else SCHEMA_FILE)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(json_schema())


if __name__ == "__main__":
    _write_schema(sys.argv[1:])
