"""The real Envoy of the bench: one process, one worker, and for each server a listener of its own that asks it.

Each listener speaks plain HTTP/1.1, asks `ext_authz` and answers 200 by itself: no upstream, so that what is measured
is Envoy, the call and the server. Who asks stands in `x-forwarded-client-cert`, which these listeners, unlike those of
`signalwarden envoy config`, believe: nobody else can reach them. A server that does not answer becomes a 503.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench import stage
from bench.stage import BenchError
from signalwarden.demo_stage import envoy_binary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Front", "Listener", "bootstrap", "ext_authz", "started"]

CONNECT_S: Final = 0.25
CHECK_TIMEOUT: Final = "5s"
"""A bench waits for what a gateway would give up: a late answer is a latency, no error."""
EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True)
class Listener:
    """One way through Envoy."""

    name: str
    target: str | None = None
    """The check address that its `ext_authz` asks."""
    http_filter: Mapping[str, Any] | None = None
    """Another filter in place of `ext_authz`; with neither, everything is let through."""


@dataclass(frozen=True, slots=True)
class Front:
    """Envoy as it runs."""

    pid: int
    ports: Mapping[str, int]
    """By the names of the listeners."""
    version: str


@contextlib.contextmanager
def started(folder: Path, listeners: Sequence[Listener], core: int | None) -> Iterator[Front]:
    """Envoy with these listeners until the context ends."""
    ports = _free_ports(len(listeners))
    config, told = folder / "envoy.json", folder / "envoy.txt"
    config.write_text(json.dumps(bootstrap(listeners, ports)), encoding="utf-8")
    command = [
        *(envoy_binary(), "--config-path", str(config), "--concurrency", "1"),
        *("--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "1"),
    ]
    with (
        told.open("wb") as sink,
        stage.child(stage.pinned(core, command), stdout=sink.fileno(), stderr=sink.fileno()) as process,
    ):
        _await(ports, process, told)
        named = {listener.name: port for listener, port in zip(listeners, ports, strict=True)}
        yield Front(process.pid, named, _version())


def bootstrap(listeners: Sequence[Listener], ports: Sequence[int]) -> dict[str, Any]:
    """Envoy's configuration, as JSON."""
    # A cluster's name is the authority of its calls, so it must look like one: listeners' names don't.
    named = {f"server-{number}": listener for number, listener in enumerate(listeners)}
    pairs = zip(named.items(), ports, strict=True)
    return {
        "static_resources": {
            "listeners": [_listener(name, listener, port) for (name, listener), port in pairs],
            "clusters": [_cluster(name, each.target) for name, each in named.items() if each.target],
        }
    }


def ext_authz(cluster: str) -> dict[str, Any]:
    """The filter that asks."""
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": CHECK_TIMEOUT},
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
        },
    }


def _listener(name: str, listener: Listener, port: int) -> dict[str, Any]:
    chosen = listener.http_filter or (ext_authz(name) if listener.target else None)
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "forward_client_cert_details": "ALWAYS_FORWARD_ONLY",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ]
        },
        "http_filters": [*([chosen] if chosen else []), router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters}],
    }


def _cluster(name: str, target: str) -> dict[str, Any]:
    if target.startswith("unix://"):
        address: dict[str, Any] = {"pipe": {"path": target.removeprefix("unix://")}}
    else:
        host, _, port = target.rpartition(":")
        address = {"socket_address": {"address": host, "port_value": int(port)}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _free_ports(number: int) -> list[int]:
    """Ports that were free a moment ago: Envoy takes none that it could choose itself and tell."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _await(ports: Sequence[int], process: subprocess.Popen[bytes], told: Path) -> None:
    deadline = time.monotonic() + stage.START_S
    for port in ports:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), CONNECT_S):
                break
            if process.poll() is not None:
                last = told.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise BenchError(f"Envoy ended with status {process.returncode}: {last or 'it said nothing'}")
            if time.monotonic() > deadline:
                raise BenchError(f"Envoy did not listen within {stage.START_S:g} s")
            time.sleep(0.05)


def _version() -> str:
    command = [envoy_binary(), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=stage.END_S, check=False).stdout
    parts = said.strip().split("/")
    return f"Envoy {parts[1]}" if len(parts) > 1 else "Envoy"
