"""Real SPIRE for tests: a server, an agent and workloads, each a process of its own on this machine's loopback.

Files and sockets stand in one short directory; every process is started by us and stopped by its own id, and
every wait has a limit. Workloads are told apart by the path of their program (`unix:path`), so that many of
them can run as one user.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509

from signalwarden.demo_stage import LOOPBACK, Process, free_port, wait_for

# Life of what the server issues. SPIRE backdates by 10 s and rotates at half-life, which is 7 s after the issue.
X509_SVID_SECONDS = 24
JWT_SVID_SECONDS = 60
# How often the agent asks the server, and the server its database: 5 s each by default.
SYNC = "1s"
# Until agents have heard that an authority is tainted.
TAINT_SECONDS = 3.0
# One call of a command line tool.
CALL_SECONDS = 30.0
# A new entry: a reload of the server's cache, a sync of the agent, and what a loaded machine adds.
ENTRY_SECONDS = 30.0


class SpireError(AssertionError):
    """A call of SPIRE's own tools that failed; its words are in the message."""


@dataclass(frozen=True)
class Programs:
    """The two programs that `make test-spire` builds."""

    server: Path
    agent: Path


def _run(command: Sequence[str | Path], ok: Sequence[int] = (0,)) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    if done.returncode not in ok:
        what = " ".join(str(part) for part in command[1:4])
        raise SpireError(f"`{what}` ended with status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


# ---- the server -------------------------------------------------------------------------------------------

_SERVER = """\
server {{
  bind_address = "{loopback}"
  bind_port = "{port}"
  trust_domain = "{trust_domain}"
  data_dir = "{directory}"
  socket_path = "{socket}"
  log_level = "DEBUG"
  ca_ttl = "{ca_ttl}"
  agent_ttl = "1h"
  default_x509_svid_ttl = "{x509_svid}s"
  default_jwt_svid_ttl = "{jwt_svid}s"
  experimental {{ cache_reload_interval = "{sync}" }}
  federation {{
    bundle_endpoint {{
      address = "{loopback}"
      port = {bundle_port}
      refresh_hint = "10s"
      profile "https_spiffe" {{}}
    }}
  }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{directory}/datastore.sqlite3"
    }}
  }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{directory}/keys.json" }} }}
}}
"""


@dataclass
class Server:
    """A `spire-server` of one trust domain, with its bundle endpoint (https_spiffe)."""

    programs: Programs
    trust_domain: str
    directory: Path
    ca_ttl: str = "24h"
    port: int = field(default_factory=free_port)
    bundle_port: int = field(default_factory=free_port)
    process: Process | None = None
    starts: int = 0

    @property
    def socket(self) -> Path:
        return self.directory / "server.sock"

    @property
    def bundle_url(self) -> str:
        return f"https://{LOOPBACK}:{self.bundle_port}/"

    @property
    def server_id(self) -> str:
        return f"spiffe://{self.trust_domain}/spire/server"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "server.conf"
        config.write_text(
            _SERVER.format(
                loopback=LOOPBACK,
                port=self.port,
                bundle_port=self.bundle_port,
                trust_domain=self.trust_domain,
                directory=self.directory,
                socket=self.socket,
                ca_ttl=self.ca_ttl,
                x509_svid=X509_SVID_SECONDS,
                jwt_svid=JWT_SVID_SECONDS,
                sync=SYNC,
            )
        )
        self.starts += 1
        command = [str(self.programs.server), "run", "-config", str(config)]
        self.process = Process("spire-server", command, self.directory / f"server-{self.starts}.log")
        self.process.wait_until(self._healthy)

    def _healthy(self) -> bool:
        try:
            self.run("healthcheck")
        except SpireError:
            return False
        return True

    def run(self, *arguments: str | Path, ok: Sequence[int] = (0,)) -> str:
        """A command of the server's own tool, over its private socket."""
        return _run([self.programs.server, *arguments, "-socketPath", self.socket], ok)

    def join_token(self, node: str) -> str:
        """A token for one agent, which then stands for `node`."""
        return self.run("token", "generate", "-ttl", "600", "-spiffeID", node).split("Token:")[1].strip()

    def bundle(self) -> str:
        """The bundle of the trust domain, as a SPIFFE bundle document."""
        return self.run("bundle", "show", "-format", "spiffe")

    def authorities(self, file: Path) -> Path:
        """The X.509 authorities of the trust domain as PEM, in this file."""
        file.write_text(self.authorities_pem())
        return file

    def authorities_pem(self) -> str:
        return self.run("bundle", "show", "-format", "pem")

    def rotate_jwt_authority(self) -> None:
        """Another JWT key from now on; the one before is taken out of the bundle."""
        old = self.next_authority("jwt")
        self.forget_authority("jwt", old, wait_s=TAINT_SECONDS)

    def next_authority(self, kind: Literal["jwt", "x509"]) -> str:
        """Prepares the next authority and signs with it from now on; returns the id of the one before."""
        shown = json.loads(self.run("localauthority", kind, "show", "-output", "json"))
        prepared = json.loads(self.run("localauthority", kind, "prepare", "-output", "json"))
        new = prepared["prepared_authority"]["authority_id"]
        self.run("localauthority", kind, "activate", "-authorityID", new)
        return str(shown["active"]["authority_id"])

    def forget_authority(self, kind: Literal["jwt", "x509"], authority_id: str, wait_s: float) -> None:
        """Takes an authority of before out of the bundle: first all agents replace what it signed. One that is taken
        out before an agent has heard that it is tainted leaves its tokens in that agent's cache."""
        self.run("localauthority", kind, "taint", "-authorityID", authority_id)
        time.sleep(wait_s)
        self.run("localauthority", kind, "revoke", "-authorityID", authority_id)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    # -- entries

    def entry(
        self,
        spiffe_id: str,
        *selectors: str,
        node: str,
        x509_seconds: int | None = None,
        jwt_seconds: int | None = None,
        federates_with: Sequence[str] = (),
        dns: Sequence[str] = (),
    ) -> str:
        """A registration entry; returns its id."""
        options: list[str] = ["-spiffeID", spiffe_id, "-parentID", node, "-output", "json"]
        for name, values in (("-selector", selectors), ("-dns", dns), ("-federatesWith", federates_with)):
            for value in values:
                options += [name, value]
        if x509_seconds is not None:
            options += ["-x509SVIDTTL", str(x509_seconds)]
        if jwt_seconds is not None:
            options += ["-jwtSVIDTTL", str(jwt_seconds)]
        made = json.loads(self.run("entry", "create", *options))
        return str(made["results"][0]["entry"]["id"])

    def delete_entry(self, entry_id: str) -> None:
        self.run("entry", "delete", "-entryID", entry_id)

    # -- federation

    def trust(self, other: Server) -> None:
        """Takes the other's bundle as it is now, and follows it over its bundle endpoint."""
        document = self.directory / f"{other.trust_domain}.bundle.json"
        document.write_text(other.bundle())
        self.run(
            "federation",
            "create",
            "-trustDomain",
            other.trust_domain,
            "-bundleEndpointURL",
            other.bundle_url,
            "-bundleEndpointProfile",
            "https_spiffe",
            "-endpointSpiffeID",
            other.server_id,
            "-trustDomainBundlePath",
            str(document),
            "-trustDomainBundleFormat",
            "spiffe",
        )

    def distrust(self, trust_domain: str) -> None:
        """Ends the relation and removes the bundle, from entries too."""
        self.run("federation", "delete", "-id", f"spiffe://{trust_domain}")
        self.run("bundle", "delete", "-id", f"spiffe://{trust_domain}", "-mode", "dissociate")


# ---- the agent --------------------------------------------------------------------------------------------

_AGENT = """\
agent {{
  data_dir = "{directory}"
  log_level = "DEBUG"
  server_address = "{loopback}"
  server_port = "{port}"
  socket_path = "{socket}"
  trust_bundle_path = "{directory}/bootstrap.pem"
  trust_domain = "{trust_domain}"
  experimental {{ sync_interval = "{sync}" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ directory = "{directory}" }} }}
  WorkloadAttestor "unix" {{
    plugin_data {{
      discover_workload_path = true
      workload_size_limit = -1
    }}
  }}
}}
"""


@dataclass
class Agent:
    """A `spire-agent` that joined with a token. Its key and its SVID are on disk: it can be started again."""

    server: Server
    directory: Path
    name: str = "agent"
    process: Process | None = None
    starts: int = 0

    @property
    def node(self) -> str:
        """The id that entries name as their parent."""
        return f"spiffe://{self.server.trust_domain}/node/{self.name}"

    @property
    def socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def address(self) -> str:
        """Of the Workload API, as SPIFFE writes it."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "agent.conf"
        command = [str(self.server.programs.agent), "run", "-config", str(config)]
        if not self.starts:
            (self.directory / "bootstrap.pem").write_text(self.server.authorities_pem())
            config.write_text(
                _AGENT.format(
                    loopback=LOOPBACK,
                    port=self.server.port,
                    trust_domain=self.server.trust_domain,
                    directory=self.directory,
                    socket=self.socket,
                    sync=SYNC,
                )
            )
            command += ["-joinToken", self.server.join_token(self.node)]
        self.starts += 1
        self.process = Process("spire-agent", command, self.directory / f"agent-{self.starts}.log")
        self.process.wait_until(self._healthy)

    def _healthy(self) -> bool:
        try:
            _run([self.server.programs.agent, "healthcheck", "-socketPath", self.socket])
        except SpireError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None


# ---- workloads --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """An X.509-SVID as files, as a client uses them."""

    spiffe_id: str
    certificate: Path
    key: Path
    bundle: Path
    serial: int
    sha256: str
    not_after: datetime


@dataclass
class Workload:
    """A program of its own path: the agent's tool under another name, so the agent attests *it*."""

    agent: Agent
    program: Path

    @classmethod
    def create(cls, agent: Agent, name: str) -> Workload:
        return cls(agent, link(agent.server.programs.agent, agent.directory / "workloads" / name))

    @property
    def selector(self) -> str:
        return f"unix:path:{self.program}"

    def register(self, spiffe_id: str, **options: Any) -> str:
        """An entry for this program; returns when the agent serves it."""
        entry = self.agent.server.entry(spiffe_id, self.selector, node=self.agent.node, **options)
        wait_for(f"an SVID of `{spiffe_id}`", lambda: spiffe_id in self.identities(), ENTRY_SECONDS)
        return entry

    def identities(self) -> list[str]:
        """The SPIFFE IDs that the agent gives this program now."""
        text = self._fetch("x509", ok=(0, 1))
        return [line.split()[-1] for line in text.splitlines() if line.startswith("SPIFFE ID:")]

    def x509(self, directory: Path) -> Identity:
        """Its first X.509-SVID of this moment, written into a new directory."""
        directory.mkdir(parents=True)
        self._fetch("x509", "-write", directory)
        certificate = x509.load_pem_x509_certificate((directory / "svid.0.pem").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        [spiffe_id] = names.get_values_for_type(x509.UniformResourceIdentifier)
        return Identity(
            spiffe_id,
            directory / "svid.0.pem",
            directory / "svid.0.key",
            directory / "bundle.0.pem",
            certificate.serial_number,
            _sha256(certificate),
            certificate.not_valid_after_utc,
        )

    def jwt(self, *audience: str) -> str:
        """A JWT-SVID for these audiences."""
        answer = json.loads(self._fetch("jwt", "-audience", ",".join(audience), "-output", "json"))
        return str(answer[0]["svids"][0]["svid"])

    def jwt_bundles(self) -> dict[str, Any]:
        """The key sets that the agent gives, by trust domain id."""
        answer = json.loads(self._fetch("jwt", "-audience", "any", "-output", "json"))
        bundles: dict[str, Any] = answer[1]["bundles"]
        return bundles

    def _fetch(self, kind: str, *options: str | Path, ok: Sequence[int] = (0,)) -> str:
        return _run([self.program, "api", "fetch", kind, "-socketPath", self.agent.socket, *options], ok)


def link(program: Path, to: Path) -> Path:
    """The same program under another path, which is what the agent looks at."""
    to.parent.mkdir(exist_ok=True)
    try:
        to.hardlink_to(program.resolve())
    except OSError:
        shutil.copy2(program, to)
    return to.resolve()


def program_selector(program: str | Path) -> str:
    """The selector of processes that run this program."""
    return f"unix:path:{Path(program).resolve()}"


def python_selector() -> str:
    """Of this process, and of each `signalwarden` that tests start."""
    return program_selector(sys.executable)


def _sha256(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex()


def seconds_left(identity: Identity) -> float:
    """Until the certificate ends."""
    return (identity.not_after - datetime.now(UTC)).total_seconds()


def wait_out(identity: Identity) -> None:
    """Until the certificate has ended, and a moment more."""
    time.sleep(max(0.0, seconds_left(identity)) + 1.0)
