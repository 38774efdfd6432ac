"""What `signalwarden.yaml` may say: one model for each part, strict, with its defaults and bounds."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from signalwarden.authzen_settings import MAX_SUBJECTS, AuthzenSettings, SubjectPattern
from signalwarden.identity_settings import BundleSettings, IdentitySettings
from signalwarden.policy_settings import Policies
from signalwarden.sink_settings import MAX_SINKS, SinkSettings
from signalwarden.task_settings import ApprovalSettings, OverrideSettings, TaskSettings
from signalwarden.telemetry_settings import TelemetrySettings
from signalwarden.values import (
    Address,
    Digest,
    DoorAddress,
    Duration,
    FilePath,
    Insecure,
    Instant,
    LongDuration,
    OnFull,
    SocketAddress,
    SpiffeId,
    StatePath,
    Strict,
    TlsAddress,
    TrustDomain,
    bad_value,
    span_s,
    span_text,
    word,
)

__all__ = [
    "BUILT_RIGHTS",
    "DEFAULT_ADMIN",
    "DEFAULT_CHECK",
    "DEFAULT_KEYS",
    "DEFAULT_LOG",
    "DEFAULT_ROTATE_BYTES",
    "TLS_FILES",
    "CheckpointSettings",
    "ClientSettings",
    "DecisionLogSettings",
    "Door",
    "Listen",
    "Policies",
    "PrincipalSettings",
    "Right",
    "Settings",
    "SignalsSettings",
    "Tls",
]

DEFAULT_CHECK = "127.0.0.1:9191"
DEFAULT_ADMIN = "127.0.0.1:9292"
TLS_FILES = ("cert", "key", "client_ca")
DEFAULT_KEYS = "var/keys"
DEFAULT_LOG = "var/decisions.jsonl"
DEFAULT_RING = "var/decisions.ring"

MIN_RING_BYTES = 1024 * 1024
"""Below this a few large records fill it."""
MAX_RING_BYTES = 1 << 34
"""16 GiB: it is memory as well as disk."""

DEFAULT_ROTATE_BYTES = 100_000_000

MIN_ROTATE_BYTES = 64 * 1024
"""Below this a single batch would outgrow a file."""
MAX_ROTATE_BYTES = 1 << 40
"""1 TiB: larger is a slip of the keyboard."""
MAX_KEEP_BYTES = 1 << 50
"""1 PiB: larger is a slip of the keyboard."""

SHORTEST_PACE_S = span_s("1s")
LONGEST_PACE_S = span_s("1h")
"""What was written since the last checkpoint is signed by none: longer, and a tree is hardly worth its disk."""

MAX_RATE = 1_000_000
"""More than any disk of one server keeps up with: larger is a slip of the keyboard."""
MAX_LIVE = 100_000_000
"""Tens of gigabytes of memory: larger is a slip of the keyboard."""


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


BUILT_RIGHTS = tuple(Right)


MAX_THREADS = 256
"""More than a machine of today has cores that one server can use."""


class Listen(Strict):
    """The doors. Loopback or a Unix socket, but for those with TLS (`tls.doors`)."""

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
    front: Annotated[Literal["grpcio", "native"], word(["grpcio", "native"])] = Field(
        default="grpcio", description="which front door serves `check`"
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=MAX_THREADS,
        description="threads that decide; as a default one for each core",
    )
    reflection: bool = Field(default=False, description="gRPC server reflection on the check address")
    signals: TlsAddress = Field(default=None, description="gRPC over mutual TLS, for publishers")


Door = Literal["signals", "check", "admin"]
DOORS: tuple[Door, ...] = ("signals", "check", "admin")


class Tls(Strict):
    """Our own certificate, whose clients' certificates are good, and which doors ask for them."""

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
    spire: bool = Field(
        default=False, description="certificate, key and authorities from `workload_api` instead"
    )
    doors: tuple[Annotated[Door, word(DOORS)], ...] = Field(
        default=("signals",), description="which doors serve mutual TLS"
    )
    check_clients: tuple[SpiffeId, ...] = Field(
        default=(), description="the Envoys: who may ask at the check door when it serves TLS"
    )


class PrincipalSettings(Strict):
    """What must be known of whoever asks."""

    require_record: bool = Field(
        default=False, description="a principal that entities.json does not list is denied"
    )


class ClientSettings(Strict):
    """Who may call the admin API, to do what. One id may have two entries while its token is rotated."""

    id: SpiffeId
    may: Annotated[
        tuple[Annotated[Right, word(BUILT_RIGHTS)], ...],
        Field(min_length=1, json_schema_extra={"items": {"enum": [*BUILT_RIGHTS]}}),
    ]
    token_sha256: Digest | None = Field(default=None, description="hex of SHA-256 over the token's bytes")
    expires: Instant | None = Field(default=None, description="from this time on the token is refused")
    subjects: Annotated[tuple[SubjectPattern, ...], Field(max_length=MAX_SUBJECTS)] = Field(
        default=(), description="with `evaluate`: workloads that it may ask about beside itself"
    )


def _pace(seconds: float) -> float:
    if not SHORTEST_PACE_S <= seconds <= LONGEST_PACE_S:
        raise bad_value(f"expected a span from {span_text(SHORTEST_PACE_S)} to {span_text(LONGEST_PACE_S)}")
    return seconds


class CheckpointSettings(Strict):
    """How often the tree over the log's lines is signed."""

    every: Annotated[Duration, AfterValidator(_pace)] = Field(
        default=span_s("10s"),
        description="how often, while there are new records",
        json_schema_extra={"default": "10s"},
    )


RedactedName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class RedactSettings(Strict):
    """What of calls no record shows: digests and templates stand in its place."""

    path_parameters: tuple[RedactedName, ...] = Field(
        default=(), description="parameters of paths: records show `{name}` in their place"
    )
    args: tuple[RedactedName, ...] = Field(
        default=(), description="arguments that routes name: records show a keyed digest in their place"
    )


class DecisionLogSettings(Strict):
    """Where decision records go."""

    path: FilePath = Field(default=DEFAULT_LOG, description="one JSON object a line")
    ring: FilePath = Field(default=DEFAULT_RING, description="where records wait until the log has them")
    ring_bytes: Annotated[int, Field(ge=MIN_RING_BYTES, le=MAX_RING_BYTES)] = 64 * 1024 * 1024
    on_full: OnFull = "deny"
    ack: Annotated[Literal["accepted", "synced"], word(["accepted", "synced"])] = "accepted"
    fold_denials: bool = Field(default=False, description="alike denials of one batch become one line")
    influence: Annotated[Literal["none", "default", "all"], word(["none", "default", "all"])] = "default"
    rotate_bytes: Annotated[int, Field(ge=MIN_ROTATE_BYTES, le=MAX_ROTATE_BYTES)] = DEFAULT_ROTATE_BYTES
    rotate_every: Duration | None = Field(
        default=None, description="a file whose first record is older is rotated with the next record"
    )
    compress: bool = Field(default=False, description="rotated files are compressed (gzip)")
    keep_files: Annotated[int, Field(ge=1, le=10_000, description="rotated files kept")] = 20
    keep_for: LongDuration | None = Field(
        default=None, description="a rotated file is removed once its last record is older"
    )
    keep_bytes: Annotated[int, Field(ge=2 * MIN_ROTATE_BYTES, le=MAX_KEEP_BYTES)] | None = Field(
        default=None, description="of all files together; without it twice what `keep_files` files hold"
    )
    sinks: Annotated[tuple[SinkSettings, ...], Field(max_length=MAX_SINKS)] = ()
    checkpoints: CheckpointSettings = CheckpointSettings()
    redact: RedactSettings = RedactSettings()

    @property
    def most_bytes(self) -> int:
        """What all files together may hold."""
        return self.keep_bytes or 2 * (self.keep_files + 1) * self.rotate_bytes

    @property
    def patience_ms(self) -> int:
        """How long a decision waits for room in the ring."""
        return int(self.on_full.partition(":")[2] or 0)

    @property
    def waits(self) -> bool:
        """Whether a decision may wait for the log: for the disk, or for room."""
        return self.ack == "synced" or self.patience_ms > 0


class SignalsSettings(Strict):
    """How much is taken from publishers."""

    max_rate: Annotated[int, Field(ge=1, le=MAX_RATE, description="values a second from one publisher")] = (
        20_000
    )
    max_live: Annotated[int, Field(ge=1, le=MAX_LIVE, description="values held at once")] = 2_000_000


class Settings(Strict):
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
    telemetry: TelemetrySettings = TelemetrySettings()
    signals: SignalsSettings = SignalsSettings()
    policies: Policies = Policies()
    watch: bool = Field(default=True, description="a change of the directory comes into force by itself")
    principals: PrincipalSettings = PrincipalSettings()
    workload_api: SocketAddress = Field(
        default=None, description="the SPIFFE Workload API, such as the socket of a SPIRE agent"
    )
    bundles: dict[TrustDomain, BundleSettings] = Field(
        default={}, description="where the trust bundle of a trust domain comes from"
    )
    tasks: TaskSettings = TaskSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    overrides: OverrideSettings = OverrideSettings()
    authzen: AuthzenSettings = AuthzenSettings()
    insecure: Insecure = False

    @staticmethod
    def stand_in(trust_domain: str, federates_with: tuple[str, ...]) -> Settings:
        """Settings by which the other files are judged where their own have mistakes."""
        return Settings(trust_domain=trust_domain, federates_with=federates_with)

    def for_core(self) -> bytes:
        """What the core must know of these settings, as JSON: what decides, and nothing else."""
        core = {
            "trust_domain": self.trust_domain,
            "federates_with": self.federates_with,
            "require_record": self.principals.require_record,
            "identity": self.identity.for_core(bundled=self.bundled()),
            "tasks": self.tasks.for_core(),
            "approvals": self.approvals.for_core(),
            "overrides": self.overrides.for_core(),
            "redact": self.decision_log.redact.model_dump(),
            "policies": self.policies.for_core(),
        }
        return json.dumps(core, separators=(",", ":"), sort_keys=True).encode()

    def bundled(self) -> tuple[str, ...]:
        """The trust domains whose bundles are brought to us: without a live one nobody of theirs is known."""
        accepted = (self.trust_domain, *self.federates_with)
        return accepted if self.workload_api is not None else tuple(d for d in accepted if d in self.bundles)

    def state_path(self, directory: Path) -> Path:
        """The SQLite file."""
        return directory / self.state.removeprefix("sqlite:")

    def keys_path(self, directory: Path) -> Path:
        """The directory of key files."""
        return directory / self.keys

    def tls_paths(self, directory: Path) -> tuple[Path, Path, Path] | None:
        """Certificate, key and authorities of our doors; None if they don't come from files."""
        cert, key, client_ca = self.tls.cert, self.tls.key, self.tls.client_ca
        if cert is None or key is None or client_ca is None:
            return None
        return directory / cert, directory / key, directory / client_ca

    def log_path(self, directory: Path) -> Path:
        """The decision log's current file."""
        return directory / self.decision_log.path

    def ring_path(self, directory: Path) -> Path:
        """The file in which records wait for the log."""
        return directory / self.decision_log.ring
