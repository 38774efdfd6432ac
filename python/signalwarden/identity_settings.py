"""What `signalwarden.yaml` may say of identities: where they come from, whose tokens count, where bundles come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from signalwarden.values import (
    Duration,
    FilePath,
    HeaderName,
    PrincipalTemplate,
    SpiffeId,
    Strict,
    Url,
    span_s,
    word,
)

__all__ = [
    "BundleSettings",
    "IdentitySettings",
    "IdentitySource",
    "IssuerSettings",
    "JwtSvidSettings",
    "KeySource",
    "LimitSettings",
    "StatusListSettings",
    "XfccSettings",
]

MICROS = 1_000_000
MAX_ISSUERS = 32
"""Each has a key set that is kept fresh; an organisation has a handful."""
MAX_AUDIENCES = 16
"""Names of one service; more are several services."""

IdentitySource = Literal["envoy_peer", "xfcc", "jwt_svid", "oauth"]
TokenClass = Literal["access_token", "transaction_token"]
HEADERS: Mapping[TokenClass, str] = {"access_token": "authorization", "transaction_token": "txn-token"}
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
Audience = Annotated[str, Field(min_length=1, max_length=512)]
Audiences = Annotated[tuple[Audience, ...], Field(min_length=1, max_length=MAX_AUDIENCES)]


def _span(default: str, description: str) -> Any:
    return Field(default=span_s(default), description=description, json_schema_extra={"default": default})


class XfccSettings(Strict):
    """What the last element of `x-forwarded-client-cert` must be."""

    by: tuple[SpiffeId, ...] = Field(
        default=(), description="the Envoys whose element counts; empty: whichever is the last"
    )


class JwtSvidSettings(Strict):
    """Which JWT-SVIDs count."""

    audience: Audiences = Field(description="one of these must be among the token's")
    header: HeaderName = Field(
        default="authorization", description="`authorization` (Bearer), or a header that holds the bare token"
    )

    def terms(self) -> str:
        """Digest of these settings: a token validated under others is validated again."""
        return _terms(self)


class KeySource(Strict):
    """A key set (RFC 7517), from a file or an address."""

    file: FilePath | None = None
    url: Url | None = None
    ca_file: FilePath | None = Field(default=None, description="the only authorities trusted for `url`")
    refresh: Duration = _span("5m", "how often it is read again")


class StatusListSettings(Strict):
    """Where the status of this issuer's tokens is looked up (Token Status List). A token without one is refused."""

    keys: KeySource
    uris: Annotated[tuple[Url, ...], Field(min_length=1, max_length=16)] = Field(
        description="beginnings of the addresses that a token may name"
    )
    ca_file: FilePath | None = Field(default=None, description="the only authorities trusted for the lists")


class IssuerSettings(Strict):
    """One issuer of tokens, and one class of them."""

    issuer: Audience = Field(description="exactly as its tokens say it")
    token_class: Annotated[TokenClass, word(get_args(TokenClass))] = Field(
        default="access_token", alias="class", description="`access_token` (RFC 9068) or `transaction_token`"
    )
    audience: Audiences = Field(description="one of these must be among the token's")
    keys: KeySource = Field(description="whose signatures count")
    header: HeaderName | None = Field(
        default=None, description="`authorization`; `txn-token` for transaction tokens"
    )
    algorithms: tuple[Annotated[Algorithm, word(get_args(Algorithm))], ...] = Field(
        default=("ES256", "ES384", "RS256", "PS256", "EdDSA"), description="which signatures count"
    )
    principal: PrincipalTemplate | None = Field(
        default=None, description="SPIFFE ID made of one claim; without it the token proves no principal"
    )
    within: SpiffeId | None = Field(
        default=None, description="where `principal` is a bare claim: the part of a trust domain it may name"
    )
    binding: Annotated[Literal["when_present", "required"], word(["when_present", "required"])] = Field(
        default="when_present", description="whether a token without `cnf` counts (RFC 8705)"
    )
    status_list: StatusListSettings | None = None

    def terms(self) -> str:
        """Digest of these settings: a token validated under others is validated again."""
        return _terms(self)

    @property
    def header_name(self) -> str:
        """The header that holds its tokens."""
        return self.header or HEADERS[self.token_class]


class _Limit(Strict):
    """What every class's limit has."""

    max_lifetime: Duration
    max_age: Duration | None

    def micros(self) -> tuple[int, int | None]:
        """Lifetime and age in microseconds."""
        return round(self.max_lifetime * MICROS), None if self.max_age is None else round(
            self.max_age * MICROS
        )


class X509Limit(_Limit):
    """How long a certificate may live, and how old it may be. What is not forwarded can't be looked at."""

    max_lifetime: Duration = _span("25h", "from `notBefore` to `notAfter`")
    max_age: Duration | None = Field(default=None, description="since `notBefore`")


class JwtSvidLimit(_Limit):
    """How long a JWT-SVID may live, and how old it may be."""

    max_lifetime: Duration = _span("1h", "from `iat` to `exp`; without `iat`, from now")
    max_age: Duration | None = Field(default=None, description="since `iat`, which it then needs")


class AccessTokenLimit(JwtSvidLimit):
    """How long an access token may live, and how old it may be."""


class TransactionTokenLimit(JwtSvidLimit):
    """How long a transaction token may live, and how old it may be."""

    max_lifetime: Duration = _span("5m", "from `iat` to `exp`")


class LimitSettings(Strict):
    """Short-lived means short-lived: one limit for each class of credential."""

    x509_svid: X509Limit = X509Limit()
    jwt_svid: JwtSvidLimit = JwtSvidLimit()
    access_token: AccessTokenLimit = AccessTokenLimit()
    transaction_token: TransactionTokenLimit = TransactionTokenLimit()


class IdentitySettings(Strict):
    """Where a principal's identity may come from."""

    sources: Annotated[
        tuple[Annotated[IdentitySource, word(get_args(IdentitySource))], ...], Field(min_length=1)
    ] = ("envoy_peer",)
    require_certificate: bool = Field(
        default=False, description="an X.509 identity counts only with its certificate"
    )
    xfcc: XfccSettings = XfccSettings()
    jwt_svid: JwtSvidSettings | None = None
    oauth: Annotated[tuple[IssuerSettings, ...], Field(max_length=MAX_ISSUERS)] = ()
    limits: LimitSettings = LimitSettings()
    admin_audience: Audience | None = Field(
        default=None, description="audience of the JWT-SVIDs of clients of the admin API"
    )

    @property
    def takes_tokens(self) -> bool:
        """Whether tokens are looked at in checks."""
        return "jwt_svid" in self.sources or "oauth" in self.sources

    def token_headers(self) -> dict[str, list[str]]:
        """Which headers hold tokens, and of which sources."""
        headers: dict[str, list[str]] = {}
        if self.jwt_svid is not None and "jwt_svid" in self.sources:
            headers.setdefault(self.jwt_svid.header, []).append("jwt_svid")
        for name in {entry.header_name for entry in self.oauth if "oauth" in self.sources}:
            headers.setdefault(name, []).append("oauth")
        return headers

    def for_core(self, *, bundled: Sequence[str]) -> dict[str, Any]:
        """What the core rechecks at each use of an identity."""
        issuers: list[dict[str, Any]] = []
        if self.jwt_svid is not None and "jwt_svid" in self.sources:
            audience = list(self.jwt_svid.audience)
            issuers.append(
                {"class": "jwt_svid", "issuer": None, "audience": audience, "terms": self.jwt_svid.terms()}
            )
        issuers += [
            {
                "class": entry.token_class,
                "issuer": entry.issuer,
                "audience": list(entry.audience),
                "terms": entry.terms(),
            }
            for entry in (self.oauth if "oauth" in self.sources else ())
        ]
        return {
            "sources": list(self.sources),
            "require_certificate": self.require_certificate,
            "xfcc_by": list(self.xfcc.by),
            "tokens": [{"header": name, "sources": of} for name, of in sorted(self.token_headers().items())],
            "issuers": issuers,
            "bundled": list(bundled),
            "limits": {name: _limit(getattr(self.limits, name)) for name in LimitSettings.model_fields},
        }


def _limit(limit: _Limit) -> dict[str, int | None]:
    lifetime, age = limit.micros()
    return {"max_lifetime_us": lifetime, "max_age_us": age}


def _terms(settings: Strict) -> str:
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


class BundleSettings(Strict):
    """Where one trust domain's bundle comes from: a file, or an endpoint of its own."""

    file: FilePath | None = Field(default=None, description="a SPIFFE bundle")
    endpoint: Url | None = Field(default=None, description="address of a SPIFFE bundle endpoint")
    profile: Annotated[Literal["https_web", "https_spiffe"] | None, word(["https_web", "https_spiffe"])] = (
        Field(default=None, description="how the endpoint is authenticated")
    )
    spiffe_id: SpiffeId | None = Field(default=None, description="whose the endpoint is, with `https_spiffe`")
    bootstrap: FilePath | None = Field(default=None, description="the first bundle, with `https_spiffe`")
    ca_file: FilePath | None = Field(default=None, description="the only authorities, with `https_web`")
    refresh: Duration | None = Field(
        default=None, description="how often at least (a file: 10s, an endpoint: 5m)"
    )
