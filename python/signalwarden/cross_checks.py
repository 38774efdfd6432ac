"""Checks over several keys of `signalwarden.yaml`, on what was read, valid or not: all mistakes in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from signalwarden.identity_checks import identity_checks
from signalwarden.settings import DEFAULT_ADMIN, DEFAULT_CHECK, DEFAULT_KEYS, DEFAULT_LOG, TLS_FILES
from signalwarden.slips import Slip, list_of, map_of
from signalwarden.values import instant, is_trust_domain, spiffe_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

__all__ = ["cross_checks"]


def cross_checks(raw: Mapping[str, Any], now: datetime) -> Iterator[Slip]:
    """Every mistake that takes two keys to see. `now` tells which tokens have expired."""
    yield from _trust_domains(raw)
    yield from _clients(raw, now)
    yield from _doors(raw)
    yield from identity_checks(raw)
    log = raw.get("decision_log", {})
    path, keys = (
        log.get("path", DEFAULT_LOG) if isinstance(log, dict) else None,
        raw.get("keys", DEFAULT_KEYS),
    )
    if isinstance(path, str) and isinstance(keys, str) and Path(path).parent == Path(keys):
        yield Slip(("keys",), "bad_value", f"`{keys}` holds the decision log, keys are kept apart from it")


def _doors(raw: Mapping[str, Any]) -> Iterator[Slip]:
    listen, tls = (map_of(raw, key) for key in ("listen", "tls"))
    seen: dict[str, str] = {}
    for door, default in (("check", DEFAULT_CHECK), ("admin", DEFAULT_ADMIN), ("signals", None)):
        address = listen.get(door, default)
        if not isinstance(address, str) or address.endswith(":0"):
            continue
        if address in seen:
            yield Slip(("listen", door), "bad_value", f"`{address}` is already the {seen[address]} address")
        seen.setdefault(address, door)
    given = [key for key in TLS_FILES if tls.get(key) is not None]
    wanted = listen.get("signals") is not None
    if wanted or given:
        for key in TLS_FILES:
            if key not in given:
                message = f"missing, {'`listen.signals`' if wanted else f'`tls.{given[0]}`'} needs it"
                yield Slip(("tls", key), "missing_key", message)
    if len(given) == len(TLS_FILES) and not wanted:
        message = "without effect: it serves `listen.signals`, which is not set"
        yield Slip(("tls", given[0]), "unused", message, "warning")


def _trust_domains(raw: Mapping[str, Any]) -> Iterator[Slip]:
    seen = [raw.get("trust_domain")]
    for at, domain in enumerate(list_of(raw, "federates_with")):
        if isinstance(domain, str) and domain in seen:
            yield Slip(("federates_with", at), "duplicate", f"`{domain}` is already accepted")
        seen.append(domain)


def _clients(raw: Mapping[str, Any], now: datetime) -> Iterator[Slip]:
    own = raw.get("trust_domain")
    known = isinstance(own, str) and is_trust_domain(own)
    accepted = [own, *list_of(raw, "federates_with")]
    tokens: list[object] = []
    for at, client in enumerate(list_of(raw, "clients")):
        if not isinstance(client, dict):
            continue
        loc = ("clients", at)
        token = client.get("token_sha256")
        domain = spiffe_trust_domain(client["id"]) if isinstance(client.get("id"), str) else None
        if domain is not None and known and domain not in accepted:
            message = f"its trust domain `{domain}` is neither `trust_domain` nor in `federates_with`"
            yield Slip((*loc, "id"), "trust_domain_unknown", message)
        if token is not None and client.get("expires") is None:
            yield Slip((*loc, "expires"), "missing_key", "missing, a client with `token_sha256` needs it")
        if token is not None and token in tokens:
            yield Slip((*loc, "token_sha256"), "duplicate", "another client has the same token")
        tokens.append(token)
        yield from _expired(loc, client.get("expires"), now)


def _expired(loc: tuple[str | int, ...], expires: object, now: datetime) -> Iterator[Slip]:
    if expires is None:
        return
    try:
        passed = instant(expires) <= now
    except PydanticCustomError:
        return  # the model says so
    if passed:
        message = f"`{expires}` has passed, the client is refused"
        yield Slip((*loc, "expires"), "client_expired", message, "warning")
