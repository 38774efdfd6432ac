"""OPA in an ext_authz server of its own, with the decision log that costs least, and with the console's."""

from __future__ import annotations

from typing import Final

from bench.peers import translate
from bench.peers.golang import GoPeer

__all__ = ["PEERS"]

PEERS: Final = (
    GoPeer("opa-sdk", (False, True), "opa", translate.rego, ("-log", "file")),
    GoPeer("opa-sdk-console", (True,), "opa", translate.rego, ("-log", "console")),
)
