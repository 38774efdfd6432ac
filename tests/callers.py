"""Clients of a running server's admin API, known by name: their entries in the settings, and how they call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from signalwarden.admin_client import AdminClient
from signalwarden.app import App
from signalwarden.config import Address
from signalwarden.errors import ServerError

__all__ = ["clients", "refused", "token_of", "who"]


def token_of(name: str) -> str:
    """The bearer token of a client, by the end of its SPIFFE ID."""
    return "token-of-" + name.rpartition("/")[2]


def clients(rights: Mapping[str, str]) -> str:
    """`clients:` of signalwarden.yaml: each SPIFFE ID with what it may."""
    return "clients:\n" + "".join(
        f'  - {{id: "{name}", may: [{may}], token_sha256: "{hashlib.sha256(token_of(name).encode()).hexdigest()}", '
        'expires: "2099-01-01T00:00:00Z"}\n'
        for name, may in rights.items()
    )


def who(app: App, name: str) -> AdminClient:
    """One of these clients, talking to a running app."""
    host, _, port = app.admin_address.rpartition(":")
    return AdminClient(Address(host.strip("[]"), int(port)), token_of(name))


def refused(act: Callable[[], Any]) -> str:
    """The reason in a refusal of the admin API."""
    with pytest.raises(ServerError) as error:
        act()
    return str(error.value).rpartition("(`")[2].partition("`")[0]
