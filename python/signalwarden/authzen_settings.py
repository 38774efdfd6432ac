"""What `signalwarden.yaml` may say of AuthZEN: under which address other enforcement points know us, and which
workloads a client may ask about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from signalwarden.values import MAX_PORT, Strict, bad_value, spiffe_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_SUBJECTS", "AuthzenSettings", "SubjectPattern", "may_ask_about"]

MAX_SUBJECTS = 1_000
"""Of one client: an enforcement point of more has a path of SPIFFE IDs to itself."""
MAX_ORIGIN = 512
"""A host name has at most 253 letters."""
_ORIGIN = re.compile(r"https://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_BELOW = "/*"


def _origin(text: str) -> str:
    """The specification wants `https` without query and fragment (section 9.1.1); a path would move the metadata below
    it (9.2), where nothing is served."""
    found = _ORIGIN.fullmatch(text)
    if len(text) > MAX_ORIGIN or found is None or not _is_port(found[3]):
        raise bad_value(
            f"expected `https://`, a host and, if need be, a port, such as `https://pdp.example.com`, found `{text}`"
        )
    return text


def _is_port(text: str | None) -> bool:
    """`:8443`, or nothing."""
    return text is None or 0 < int(text.removeprefix(":")) <= MAX_PORT


def _pattern(text: str) -> str:
    if spiffe_trust_domain(text.removesuffix(_BELOW)) is None:
        raise bad_value(
            "expected a SPIFFE ID such as `spiffe://prod.example/ns/a/sa/b`, or one that ends in `/*` for all below "
            f"it, found `{text}`"
        )
    return text


Origin = Annotated[
    str, AfterValidator(_origin), WithJsonSchema({"type": "string", "pattern": f"^{_ORIGIN.pattern}$"})
]
SubjectPattern = Annotated[
    str,
    AfterValidator(_pattern),
    WithJsonSchema({"type": "string", "pattern": r"^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*(/\*)?$"}),
]


class AuthzenSettings(Strict):
    """How other enforcement points find us."""

    policy_decision_point: Origin | None = Field(
        default=None,
        description="our address as others know it, for `/.well-known/authzen-configuration`; without it there is none",
    )


def may_ask_about(client: str, patterns: Iterable[str], subject: str) -> bool:
    """Whether a client may ask about a workload: about itself, and about whom its entry names."""
    if subject == client:
        return True
    return any(
        subject.startswith(pattern.removesuffix("*")) if pattern.endswith(_BELOW) else subject == pattern
        for pattern in patterns
    )
