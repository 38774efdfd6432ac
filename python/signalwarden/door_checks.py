"""Checks over several keys of the settings that say where doors open, with what TLS, and who may come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError

from signalwarden.settings import DEFAULT_ADMIN, DEFAULT_CHECK, DOORS, TLS_FILES
from signalwarden.slips import Slip, list_of, map_of
from signalwarden.values import Address, spiffe_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["client_ways", "door_checks"]

DEFAULTS: Final = {"check": DEFAULT_CHECK, "admin": DEFAULT_ADMIN}


def door_checks(raw: Mapping[str, Any]) -> Iterator[Slip]:
    """Every mistake of `listen` and `tls` that takes two keys to see."""
    listen, tls = (map_of(raw, key) for key in ("listen", "tls"))
    doors = _doors(tls)
    yield from _addresses(listen, doors)
    if listen.get("front") == "native" and listen.get("reflection") is True:
        message = "the native front door has no reflection, expected `front: grpcio`, or leave the key out"
        yield Slip(("listen", "reflection"), "bad_value", message)
    yield from _material(raw, listen, tls, doors)
    yield from _check_clients(raw, tls, doors)
    for key in ("doors", "check_clients"):
        entries = list_of(tls, key)
        for at, entry in enumerate(entries):
            if entry in entries[:at]:
                yield Slip(("tls", key, at), "duplicate", f"`{entry}` stands there twice")


def client_ways(raw: Mapping[str, Any]) -> bool:
    """Whether a client of the admin API can come by its SVID at all."""
    return "admin" in _doors(map_of(raw, "tls")) or bool(map_of(raw, "identity").get("admin_audience"))


def _doors(tls: Mapping[str, Any]) -> Sequence[object]:
    return list_of(tls, "doors") if "doors" in tls else ("signals",)


def _addresses(listen: Mapping[str, Any], doors: Sequence[object]) -> Iterator[Slip]:
    seen: dict[str, str] = {}
    for door in ("check", "admin", "signals"):
        address = listen.get(door, DEFAULTS.get(door))
        if not isinstance(address, str):
            continue
        if address in seen and not address.endswith(":0"):
            yield Slip(("listen", door), "bad_value", f"`{address}` is already the {seen[address]} address")
        seen.setdefault(address, door)
        yield from _of_door(door, address, doors)


def _of_door(door: str, text: str, doors: Sequence[object]) -> Iterator[Slip]:
    try:
        address = Address.parse_anywhere(text)
    except PydanticCustomError:
        return  # the model says so
    loc = ("listen", door)
    if door == "signals":
        if door not in doors:
            yield Slip(loc, "bad_value", "serves mutual TLS alone, expected `signals` among `tls.doors`")
    elif door not in doors and not address.is_local:
        message = (
            f"`{text}` can be reached from elsewhere, so it needs TLS with client authentication: expected `{door}` "
            "among `tls.doors`, or 127.0.0.0/8, `[::1]`, `localhost` or `unix:///path`"
        )
        yield Slip(loc, "bad_value", message)
    elif door in doors and address.path is not None:
        message = f"a Unix socket is kept by its file mode and has no TLS: leave `{door}` out of `tls.doors`"
        yield Slip(loc, "bad_value", message)


def _material(
    raw: Mapping[str, Any], listen: Mapping[str, Any], tls: Mapping[str, Any], doors: Sequence[object]
) -> Iterator[Slip]:
    """Certificates that doors need, and doors that certificates are for."""
    given = [key for key in TLS_FILES if tls.get(key) is not None]
    spire = tls.get("spire") is True
    served = [door for door in DOORS if door in doors and (door != "signals" or listen.get("signals"))]
    if spire and given:
        yield Slip(("tls", "spire"), "bad_value", f"expected either `spire` or files, found `tls.{given[0]}`")
    elif spire and raw.get("workload_api") is None:
        message = "missing, `tls.spire` needs it: the socket of the SPIRE agent"
        yield Slip(("workload_api",), "missing_key", message)
    elif not spire and (served or given):
        needed_by = _needed_by(served, given)
        for key in TLS_FILES:
            if key not in given:
                yield Slip(("tls", key), "missing_key", f"missing, {needed_by} needs it")
    if (spire or len(given) == len(TLS_FILES)) and not served:
        message = "without effect: it serves `listen.signals`, which is not set, and no other of `tls.doors`"
        yield Slip(("tls", "spire" if spire else given[0]), "unused", message, "warning")
    elif "signals" in list_of(tls, "doors") and not listen.get("signals"):
        message = "without effect: `listen.signals` is not set"
        yield Slip(("tls", "doors", list_of(tls, "doors").index("signals")), "unused", message, "warning")


def _needed_by(served: Sequence[str], given: Sequence[str]) -> str:
    if not served:
        return f"`tls.{given[0]}`"
    return "`listen.signals`" if served[0] == "signals" else f"`{served[0]}` in `tls.doors`"


def _check_clients(raw: Mapping[str, Any], tls: Mapping[str, Any], doors: Sequence[object]) -> Iterator[Slip]:
    clients = list_of(tls, "check_clients")
    if "check" in doors and not clients:
        message = "missing, `check` in `tls.doors` needs it: the SPIFFE IDs of the Envoys that may ask"
        yield Slip(("tls", "check_clients"), "missing_key", message)
    if clients and "check" not in doors:
        message = "without effect: `check` is not among `tls.doors`"
        yield Slip(("tls", "check_clients"), "unused", message, "warning")
    accepted = [raw.get("trust_domain"), *list_of(raw, "federates_with")]
    for at, client in enumerate(clients):
        domain = spiffe_trust_domain(client) if isinstance(client, str) else None
        if domain is None:
            continue  # the model says so
        loc = ("tls", "check_clients", at)
        if client == f"spiffe://{domain}":
            yield Slip(loc, "bad_value", f"`{client}` is a trust domain, expected the SPIFFE ID of an Envoy")
        if domain not in accepted:
            message = f"its trust domain `{domain}` is neither `trust_domain` nor in `federates_with`"
            yield Slip(loc, "trust_domain_unknown", message)
