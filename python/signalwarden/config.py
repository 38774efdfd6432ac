"""The configuration directory: typed settings of `signalwarden.yaml`, and the load of the whole in one pass.

Everything is strict. A mistake becomes a finding with file, line, key, what was expected and the nearest
known key; a value whose feature is not built yet is a mistake that says so. What the core reads (routes,
register, entities, policies) passes through here as bytes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from signalwarden import _core, approvers
from signalwarden.directory import SETTINGS_FILE, Directory
from signalwarden.errors import ConfigurationError, FindingLike, Problem, is_error, sorted_findings
from signalwarden.values import (
    Address,
    Digest,
    DoorAddress,
    FilePath,
    Insecure,
    Instant,
    NotBuilt,
    SpiffeId,
    StatePath,
    TlsAddress,
    TrustDomain,
    instant,
    is_trust_domain,
    kind_of,
    one_of,
    spiffe_trust_domain,
    suggestion,
    word,
)

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
    "load",
    "read_settings",
]

SCHEMA_FILE = "docs/schema/signalwarden.schema.json"
DEFAULT_CHECK = "127.0.0.1:9191"
DEFAULT_ADMIN = "127.0.0.1:9292"
TLS_FILES = ("cert", "key", "client_ca")
DEFAULT_KEYS = "var/keys"
DEFAULT_LOG = "var/decisions.jsonl"

MIN_ROTATE_BYTES = 64 * 1024
"""Below this a single batch would outgrow a file."""
MAX_ROTATE_BYTES = 1 << 40
"""1 TiB: larger is a slip of the keyboard."""

MAX_RATE = 1_000_000
"""More than any disk of one server keeps up with: larger is a slip of the keyboard."""
MAX_LIVE = 100_000_000
"""Tens of gigabytes of memory: larger is a slip of the keyboard."""


# ---------------------------------------------------------------- the settings


class Right(StrEnum):
    """What a client of the admin API may do. Closed."""

    PUBLISH = "publish"
    READ = "read"
    TASKS = "tasks"
    OVERRIDE = "override"
    WORKFLOWS = "workflows"
    APPROVE = "approve"
    EVALUATE = "evaluate"
    OPERATE = "operate"


BUILT_RIGHTS = (Right.PUBLISH, Right.READ, Right.OPERATE)
LATER_RIGHTS = tuple(right for right in Right if right not in BUILT_RIGHTS)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Listen(_Strict):
    """The doors. Loopback or a Unix socket, but for `signals`, which has TLS."""

    check: DoorAddress = Field(
        default=Address.parse(DEFAULT_CHECK),
        description="gRPC, for Envoy",
        json_schema_extra={"default": DEFAULT_CHECK},
    )
    admin: DoorAddress = Field(
        default=Address.parse(DEFAULT_ADMIN),
        description="HTTP, for publishers and operators",
        json_schema_extra={"default": DEFAULT_ADMIN},
    )
    front: Annotated[Literal["grpcio"], word(["grpcio"], ["native"])] = Field(
        default="grpcio", description="which front door serves `check`"
    )
    reflection: bool = Field(default=False, description="gRPC server reflection on the check address")
    signals: TlsAddress = Field(default=None, description="gRPC over mutual TLS, for publishers")


class Tls(_Strict):
    """PEM files of `listen.signals`, relative to the directory. The other keys are known, and not built yet."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {key: [other for other in TLS_FILES if other != key] for key in TLS_FILES}
        }
    )

    cert: FilePath | None = Field(default=None, description="our certificate, its chain behind it")
    key: FilePath | None = Field(default=None, description="its private key")
    client_ca: FilePath | None = Field(
        default=None, description="the authorities whose word on a client's SPIFFE ID is good"
    )
    spire: NotBuilt = None
    check_clients: NotBuilt = None


IdentitySource = Annotated[Literal["envoy_peer"], word(["envoy_peer"], ["xfcc", "jwt_svid", "oauth"])]


class IdentitySettings(_Strict):
    """Where a principal's identity may come from."""

    sources: Annotated[tuple[IdentitySource, ...], Field(min_length=1)] = ("envoy_peer",)


class ClientSettings(_Strict):
    """Who may call the admin API, to do what. One id may have two entries while its token is rotated."""

    id: SpiffeId
    may: Annotated[
        tuple[Annotated[Right, word(BUILT_RIGHTS, LATER_RIGHTS)], ...],
        Field(min_length=1, json_schema_extra={"items": {"enum": [*BUILT_RIGHTS]}}),
    ]
    token_sha256: Digest | None = Field(default=None, description="hex of SHA-256 over the token's bytes")
    expires: Instant | None = Field(default=None, description="from this time on the token is refused")


class DecisionLogSettings(_Strict):
    """Where decision records go."""

    path: FilePath = Field(default=DEFAULT_LOG, description="one JSON object a line")
    on_full: Annotated[Literal["deny"], word(["deny"], ["block", "allow", "drop"])] = "deny"
    ack: Annotated[Literal["accepted"], word(["accepted"], ["synced"])] = "accepted"
    influence: Annotated[Literal["none", "default", "all"], word(["none", "default", "all"])] = "default"
    rotate_bytes: Annotated[int, Field(ge=MIN_ROTATE_BYTES, le=MAX_ROTATE_BYTES)] = 100_000_000
    keep_files: Annotated[int, Field(ge=1, le=10_000, description="rotated files kept")] = 20


class SignalsSettings(_Strict):
    """How much is taken from publishers."""

    max_rate: Annotated[int, Field(ge=1, le=MAX_RATE, description="values a second from one publisher")] = (
        20_000
    )
    max_live: Annotated[int, Field(ge=1, le=MAX_LIVE, description="values held at once")] = 2_000_000


class Policies(_Strict):
    """Engine options: none yet."""


class Settings(_Strict):
    """What `signalwarden.yaml` says."""

    trust_domain: TrustDomain
    federates_with: tuple[TrustDomain, ...] = Field(
        default=(), description="other trust domains whose principals are accepted"
    )
    listen: Listen = Listen()
    tls: Tls = Tls()
    identity: IdentitySettings = IdentitySettings()
    clients: tuple[ClientSettings, ...] = ()
    state: StatePath = Field(default="sqlite:var/state.db", description="where live state is kept")
    keys: FilePath = Field(default=DEFAULT_KEYS, description="directory of key files, made when missing")
    decision_log: DecisionLogSettings = DecisionLogSettings()
    signals: SignalsSettings = SignalsSettings()
    policies: Policies = Policies()
    watch: bool = Field(default=True, description="a change of the directory comes into force by itself")
    principals: NotBuilt = None
    insecure: Insecure = False

    def state_path(self, directory: Path) -> Path:
        """The SQLite file."""
        return directory / self.state.removeprefix("sqlite:")

    def keys_path(self, directory: Path) -> Path:
        """The directory of key files."""
        return directory / self.keys

    def tls_paths(self, directory: Path) -> tuple[Path, Path, Path] | None:
        """Certificate, key and authorities of the signals address; None if there is none."""
        cert, key, client_ca = self.tls.cert, self.tls.key, self.tls.client_ca
        if self.listen.signals is None or cert is None or key is None or client_ca is None:
            return None
        return directory / cert, directory / key, directory / client_ca

    def log_path(self, directory: Path) -> Path:
        """The decision log's current file."""
        return directory / self.decision_log.path


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
    slips = [*_model_slips(document.json), *_cross_checks(raw, now)]
    findings += [_problem(slip, file, document.places) for slip in slips]
    if any(map(is_error, findings)):
        return None, findings
    return Settings.model_validate_json(document.json), findings


@dataclass(frozen=True, slots=True)
class _Slip:
    """A mistake before its place is looked up."""

    loc: tuple[str | int, ...]
    code: str
    message: str
    severity: Literal["error", "warning"] = "error"


def _problem(slip: _Slip, file: str, places: Mapping[str, tuple[int, int]]) -> Problem:
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


def _model_slips(text: bytes) -> Iterator[_Slip]:
    try:
        Settings.model_validate_json(text)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=True):
            if detail["type"] != "too_short" or not detail.get("input"):  # else its entries were the mistake
                yield _slip(detail)


def _slip(detail: ErrorDetails) -> _Slip:
    """One error of the models in the words of this house."""
    loc, kind, found = detail["loc"], detail["type"], detail.get("input")
    context = detail.get("ctx", {})
    match kind:
        case "bad_value" | "not_built":
            return _Slip(loc, kind, detail["msg"])
        case "extra_forbidden":
            known = _known_keys(loc[:-1])
            others = f", expected {one_of(known)}" if known else ", no key is known here"
            return _Slip(loc, "unknown_key", f"unknown key{suggestion(str(loc[-1]), known) or others}")
        case "missing":
            return _Slip(loc, "missing_key", "missing, the key is required")
        case "too_short":
            return _Slip(
                loc, "bad_value", f"expected at least {context.get('min_length', 1)} entry, found none"
            )
        case "greater_than_equal":
            return _Slip(loc, "bad_value", f"expected at least {context.get('ge')}, found {found}")
        case "less_than_equal":
            return _Slip(loc, "bad_value", f"expected at most {context.get('le')}, found {found}")
    expected = _EXPECTED.get(kind)
    if expected is None:
        return _Slip(loc, "bad_value", detail["msg"].lower())
    return _Slip(loc, "wrong_type", f"expected {expected}, found {kind_of(found)}")


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
    model: type[BaseModel] = Settings
    for step in loc:
        if isinstance(step, str):
            model = _MODELS[step]
    return list(model.model_fields)


_MODELS: dict[str, type[BaseModel]] = {
    "listen": Listen,
    "tls": Tls,
    "identity": IdentitySettings,
    "clients": ClientSettings,
    "decision_log": DecisionLogSettings,
    "signals": SignalsSettings,
    "policies": Policies,
}


# ---------------------------------------------------------------- checks over several keys


def _cross_checks(raw: Mapping[str, Any], now: datetime) -> Iterator[_Slip]:
    """Works on what was read, valid or not, so that all mistakes are found in one pass."""
    yield from _trust_domains(raw)
    yield from _clients(raw, now)
    yield from _doors(raw)
    log = raw.get("decision_log", {})
    path, keys = (
        log.get("path", DEFAULT_LOG) if isinstance(log, dict) else None,
        raw.get("keys", DEFAULT_KEYS),
    )
    if isinstance(path, str) and isinstance(keys, str) and Path(path).parent == Path(keys):
        yield _Slip(("keys",), "bad_value", f"`{keys}` holds the decision log, keys are kept apart from it")


def _doors(raw: Mapping[str, Any]) -> Iterator[_Slip]:
    listen, tls = (part if isinstance(part := raw.get(key, {}), dict) else {} for key in ("listen", "tls"))
    seen: dict[str, str] = {}
    for door, default in (("check", DEFAULT_CHECK), ("admin", DEFAULT_ADMIN), ("signals", None)):
        address = listen.get(door, default)
        if not isinstance(address, str) or address.endswith(":0"):
            continue
        if address in seen:
            yield _Slip(("listen", door), "bad_value", f"`{address}` is already the {seen[address]} address")
        seen.setdefault(address, door)
    given = [key for key in TLS_FILES if tls.get(key) is not None]
    wanted = listen.get("signals") is not None
    if wanted or given:
        for key in TLS_FILES:
            if key not in given:
                message = f"missing, {'`listen.signals`' if wanted else f'`tls.{given[0]}`'} needs it"
                yield _Slip(("tls", key), "missing_key", message)
    if len(given) == len(TLS_FILES) and not wanted:
        message = "without effect: it serves `listen.signals`, which is not set"
        yield _Slip(("tls", given[0]), "unused", message, "warning")


def _trust_domains(raw: Mapping[str, Any]) -> Iterator[_Slip]:
    seen = [raw.get("trust_domain")]
    for at, domain in enumerate(_list(raw, "federates_with")):
        if isinstance(domain, str) and domain in seen:
            yield _Slip(("federates_with", at), "duplicate", f"`{domain}` is already accepted")
        seen.append(domain)


def _clients(raw: Mapping[str, Any], now: datetime) -> Iterator[_Slip]:
    own = raw.get("trust_domain")
    known = isinstance(own, str) and is_trust_domain(own)
    accepted = [own, *_list(raw, "federates_with")]
    tokens: list[object] = []
    for at, client in enumerate(_list(raw, "clients")):
        if not isinstance(client, dict):
            continue
        loc = ("clients", at)
        token = client.get("token_sha256")
        domain = spiffe_trust_domain(client["id"]) if isinstance(client.get("id"), str) else None
        if domain is not None and known and domain not in accepted:
            message = f"its trust domain `{domain}` is neither `trust_domain` nor in `federates_with`"
            yield _Slip((*loc, "id"), "trust_domain_unknown", message)
        if token is None:
            message = "authentication by SVID is not built yet, expected `token_sha256` and `expires`"
            yield _Slip(loc, "not_built", message)
        elif client.get("expires") is None:
            yield _Slip((*loc, "expires"), "missing_key", "missing, a client with `token_sha256` needs it")
        if token is not None and token in tokens:
            yield _Slip((*loc, "token_sha256"), "duplicate", "another client has the same token")
        tokens.append(token)
        yield from _expired(loc, client.get("expires"), now)


def _expired(loc: tuple[str | int, ...], expires: object, now: datetime) -> Iterator[_Slip]:
    if expires is None:
        return
    try:
        passed = instant(expires) <= now
    except PydanticCustomError:
        return  # the model says so
    if passed:
        message = f"`{expires}` has passed, the client is refused"
        yield _Slip((*loc, "expires"), "client_expired", message, "warning")


def _list(raw: Mapping[str, Any], key: str) -> list[Any]:
    value = raw.get(key)
    return value if isinstance(value, list) else []


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


UNKNOWN_TRUST_DOMAIN = "unknown.invalid"
"""Stands in where `trust_domain` is itself a mistake, so that the other files are still checked."""


def load(path: Path | str, now_us: int) -> Loaded:
    """Loads a directory. Raises ConfigurationError with every mistake of all its files, found in one pass."""
    return judge(Directory.read(Path(path)), now_us)


def judge(directory: Directory, now_us: int, *, unapproved: bool = False) -> Loaded:
    """`load` for a directory that has been read. `unapproved`: whoever is to approve a contract has not done so yet."""
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
    domain, federates = (settings.trust_domain, settings.federates_with) if settings else _domains(text)
    configuration: _core.Configuration | None = None
    try:
        configuration = _core.Configuration.load(
            directory.core_files(), trust_domain=domain, federates_with=list(federates), now_us=now_us
        )
        findings += configuration.warnings
        contracts = orjson.loads(configuration.describe())["signals"]
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
    return Loaded(directory.root, settings, configuration, warnings, directory.digest, directory.approvals())


def _unauthenticated(
    settings: Settings, contracts: Sequence[Mapping[str, Any]], directory: Directory
) -> Iterator[Problem]:
    """Push sources whose publisher nobody could be: no token in `clients`, and no door that takes
    certificates."""
    if settings.listen.signals is not None:
        return
    known = {client.id for client in settings.clients if Right.PUBLISH in client.may}
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
        name for name in _list(raw, "federates_with") if isinstance(name, str) and is_trust_domain(name)
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
    target = Path(arguments[0] if arguments else SCHEMA_FILE)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(json_schema())


if __name__ == "__main__":
    _write_schema(sys.argv[1:])
