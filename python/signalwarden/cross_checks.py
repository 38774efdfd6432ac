"""Checks over several keys of `signalwarden.yaml`, on what was read, valid or not: all mistakes in one pass."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError

from signalwarden.door_checks import client_ways, door_checks
from signalwarden.identity_checks import identity_checks
from signalwarden.settings import DEFAULT_KEYS, DEFAULT_LOG, DEFAULT_ROTATE_BYTES
from signalwarden.sink_settings import sink_checks
from signalwarden.slips import Slip, list_of, map_of
from signalwarden.telemetry_settings import telemetry_checks
from signalwarden.values import instant, is_trust_domain, spiffe_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

__all__ = ["cross_checks"]

LONG_LIVED: Final = timedelta(days=90)
"""A bearer secret that lives longer is one that somebody forgets. `signalwarden init` makes such of this life."""


def cross_checks(raw: Mapping[str, Any], now: datetime) -> Iterator[Slip]:
    """Every mistake that takes two keys to see. `now` tells which tokens have expired."""
    yield from _trust_domains(raw)
    yield from _clients(raw, now)
    yield from door_checks(raw)
    yield from identity_checks(raw)
    yield from telemetry_checks(raw)
    yield from _decision_log(map_of(raw, "decision_log"))
    log = raw.get("decision_log", {})
    path, keys = (
        log.get("path", DEFAULT_LOG) if isinstance(log, dict) else None,
        raw.get("keys", DEFAULT_KEYS),
    )
    if isinstance(path, str) and isinstance(keys, str) and Path(path).parent == Path(keys):
        yield Slip(("keys",), "bad_value", f"`{keys}` holds the decision log, keys are kept apart from it")


def _decision_log(log: Mapping[str, Any]) -> Iterator[Slip]:
    yield from sink_checks(list_of(log, "sinks"))
    rotate, keep = log.get("rotate_bytes", DEFAULT_ROTATE_BYTES), log.get("keep_bytes")
    if type(rotate) is int and type(keep) is int and keep < 2 * rotate:
        message = f"expected at least twice `rotate_bytes`, {2 * rotate}, found {keep}"
        yield Slip(("decision_log", "keep_bytes"), "bad_value", message)


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
    by_svid: list[object] = []
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
        if list_of(client, "subjects") and "evaluate" not in list_of(client, "may"):
            message = "who may be asked about says nothing without `evaluate` in `may`"
            yield Slip((*loc, "subjects"), "bad_value", message)
        if token is not None and token in tokens:
            yield Slip((*loc, "token_sha256"), "duplicate", "another client has the same token")
        tokens.append(token)
        yield from _expired(loc, client.get("expires"), now, secret=token is not None)
        if token is None and domain is not None:
            yield from _by_svid(raw, loc, client["id"], by_svid)
            by_svid.append(client["id"])


def _by_svid(
    raw: Mapping[str, Any], loc: tuple[str | int, ...], who: str, others: Sequence[object]
) -> Iterator[Slip]:
    """A client without a token comes by its SVID."""
    if who in others:
        yield Slip((*loc, "id"), "duplicate", "another client by SVID has the same id")
    if not client_ways(raw):
        message = (
            "without effect: a client without `token_sha256` comes by its SVID, which needs `admin` in `tls.doors` or "
            "`identity.admin_audience`"
        )
        yield Slip(loc, "unused", message, "warning")


def _expired(loc: tuple[str | int, ...], expires: object, now: datetime, *, secret: bool) -> Iterator[Slip]:
    if expires is None:
        return
    try:
        until = instant(expires)
    except PydanticCustomError:
        return  # the model says so
    if until <= now:
        message = f"`{expires}` has passed, the client is refused"
        yield Slip((*loc, "expires"), "client_expired", message, "warning")
    elif secret and until - now > LONG_LIVED:
        message = (
            f"`{expires}` is more than {LONG_LIVED.days} days ahead: a token is replaced more often than that"
        )
        yield Slip((*loc, "expires"), "client_long_lived", message, "warning")
