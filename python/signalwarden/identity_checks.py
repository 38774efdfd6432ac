"""Checks over several keys of the settings that say whose word on an identity counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signalwarden.slips import Slip, list_of, map_of
from signalwarden.values import spiffe_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["identity_checks"]

Location = tuple[str | int, ...]


def identity_checks(raw: Mapping[str, Any]) -> Iterator[Slip]:
    """Every mistake of `identity`, `bundles` and `workload_api` that takes two keys to see."""
    identity = map_of(raw, "identity")
    domains = [raw.get("trust_domain"), *list_of(raw, "federates_with")]
    yield from _sources(identity)
    for at, issuer in enumerate(list_of(identity, "oauth")):
        if isinstance(issuer, dict):
            yield from _issuer(("identity", "oauth", at), issuer, domains)
    yield from _repeated(list_of(identity, "oauth"))
    for name, bundle in map_of(raw, "bundles").items():
        if isinstance(bundle, dict):
            yield from _bundle(("bundles", name), bundle)
        if name not in domains:
            message = "its trust domain is neither `trust_domain` nor in `federates_with`"
            yield Slip(("bundles", name), "trust_domain_unknown", message)
    yield from _without_bundle(raw, identity, domains)


def _sources(identity: Mapping[str, Any]) -> Iterator[Slip]:
    sources = list_of(identity, "sources")
    for at, source in enumerate(sources):
        if source in sources[:at]:
            yield Slip(("identity", "sources", at), "duplicate", f"`{source}` stands there twice")
    for source, needed in (("jwt_svid", "jwt_svid"), ("oauth", "oauth")):
        if source in sources and not identity.get(needed):
            message = f"the source `{source}` needs `identity.{needed}`, which says whose tokens count"
            yield Slip(("identity", "sources", sources.index(source)), "missing_key", message)
        if identity.get(needed) and source not in sources:
            message = f"without effect: `{source}` is not among `identity.sources`"
            yield Slip(("identity", needed), "unused", message, "warning")
    if identity.get("xfcc") and "xfcc" not in sources:
        message = "without effect: `xfcc` is not among `identity.sources`"
        yield Slip(("identity", "xfcc"), "unused", message, "warning")


def _issuer(loc: Location, issuer: Mapping[str, Any], domains: Sequence[object]) -> Iterator[Slip]:
    yield from _keys((*loc, "keys"), issuer.get("keys"))
    if isinstance(status := issuer.get("status_list"), dict):
        yield from _keys((*loc, "status_list", "keys"), status.get("keys"))
    principal, within = issuer.get("principal"), issuer.get("within")
    if not isinstance(principal, str):
        if within is not None:
            yield Slip((*loc, "within"), "unused", "without effect: there is no `principal`", "warning")
        return
    if principal.startswith("{"):
        if within is None:
            message = (
                "missing, a `principal` that is a claim alone needs it: else its issuer could name anyone"
            )
            yield Slip((*loc, "within"), "missing_key", message)
    elif within is not None:
        yield Slip((*loc, "within"), "bad_value", "expected only beside a `principal` that is a claim alone")
    names = principal.split("{")[0].rstrip("/") if principal.startswith("spiffe://") else within
    domain = spiffe_trust_domain(names) if isinstance(names, str) else None
    if domain is not None and domain not in domains:
        key = "principal" if principal.startswith("spiffe://") else "within"
        message = f"its trust domain `{domain}` is neither `trust_domain` nor in `federates_with`"
        yield Slip((*loc, key), "trust_domain_unknown", message)


def _keys(loc: Location, keys: object) -> Iterator[Slip]:
    if not isinstance(keys, dict):
        return
    given = [key for key in ("file", "url") if keys.get(key) is not None]
    if len(given) != 1:
        yield Slip(
            loc, "bad_value", f"expected either `file` or `url`, found {' and '.join(given) or 'neither'}"
        )
    if keys.get("ca_file") is not None and "url" not in given:
        yield Slip((*loc, "ca_file"), "bad_value", "expected only beside `url`")


def _repeated(issuers: Sequence[object]) -> Iterator[Slip]:
    seen: list[tuple[object, object]] = []
    for at, issuer in enumerate(issuers):
        if not isinstance(issuer, dict):
            continue
        name = (issuer.get("issuer"), issuer.get("class", "access_token"))
        if name in seen:
            message = f"the issuer `{name[0]}` has another entry for this class"
            yield Slip(("identity", "oauth", at), "duplicate", message)
        seen.append(name)


FOR_ENDPOINT = ("profile", "spiffe_id", "bootstrap", "ca_file")


def _bundle(loc: Location, bundle: Mapping[str, Any]) -> Iterator[Slip]:
    given = [key for key in ("file", "endpoint") if bundle.get(key) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "neither"
        yield Slip(loc, "bad_value", f"expected either `file` or `endpoint`, found {found}")
        return
    profile = bundle.get("profile")
    if given == ["endpoint"] and profile is None:
        yield Slip((*loc, "profile"), "missing_key", "missing, an `endpoint` needs it")
    wanted: dict[object, tuple[str, ...]] = {"https_spiffe": ("spiffe_id", "bootstrap")}
    needed = wanted.get(profile, ())
    for key in needed:
        if bundle.get(key) is None:
            yield Slip((*loc, key), "missing_key", f"missing, the profile `{profile}` needs it")
    allowed = {None: ("profile",), "https_web": ("profile", "ca_file"), "https_spiffe": ("profile", *needed)}
    for key in FOR_ENDPOINT:
        if bundle.get(key) is not None and (
            given == ["file"] or key not in allowed.get(profile, FOR_ENDPOINT)
        ):
            of = "a `file`" if given == ["file"] else f"the profile `{profile}`"
            yield Slip((*loc, key), "bad_value", f"without meaning for {of}, leave it out")
    identity = bundle.get("spiffe_id")
    if isinstance(identity, str) and spiffe_trust_domain(identity) not in (None, loc[-1]):
        yield Slip(
            (*loc, "spiffe_id"), "bad_value", f"expected a SPIFFE ID of `{loc[-1]}`, found `{identity}`"
        )


def _without_bundle(
    raw: Mapping[str, Any], identity: Mapping[str, Any], domains: Sequence[object]
) -> Iterator[Slip]:
    """JWT-SVIDs of a trust domain whose keys nobody brings: each of them would be refused."""
    if "jwt_svid" not in list_of(identity, "sources") or raw.get("workload_api") is not None:
        return
    bundles = map_of(raw, "bundles")
    for at, domain in enumerate(domains):
        if isinstance(domain, str) and domain not in bundles:
            loc: Location = ("federates_with", at - 1) if at else ("trust_domain",)
            message = f"`{domain}` has no entry in `bundles` and there is no `workload_api`: its JWT-SVIDs are refused"
            yield Slip(loc, "without_bundle", message, "warning")
