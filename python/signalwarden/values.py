"""Single values of the settings: each parsed strictly, with one sentence for what was expected."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from signalwarden import _core
from signalwarden.errors import FeedError
from signalwarden.outbound import check_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_SPIFFE_ID_BYTES = 2048
"""SPIFFE ID specification, section 2.3."""
MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of Linux is 108 bytes with its final NUL."""
MAX_PORT = 65_535
MAX_BLOCK_MS = 10_000
"""Envoy waits 200 ms for a check unless told otherwise; far beyond that nobody waits for the answer."""


def not_built(sentence: str) -> PydanticCustomError:
    """The error for a value that a later version will understand."""
    return PydanticCustomError("not_built", "{sentence}", {"sentence": sentence})


def bad_value(sentence: str) -> PydanticCustomError:
    """The error for a value that no version will understand."""
    return PydanticCustomError("bad_value", "{sentence}", {"sentence": sentence})


# ---------------------------------------------------------------- words


def suggestion(written: str, known: Sequence[str]) -> str:
    """`, did you mean …?`, or nothing."""
    near = _core.nearest_name(written, known)
    return f", did you mean `{near}`?" if near else ""


def one_of(words: Sequence[str]) -> str:
    """The words of a closed list as they stand in a sentence."""
    quoted = ", ".join(f"`{word}`" for word in words)
    return quoted if len(words) == 1 else f"one of {quoted}"


def kind_of(value: object) -> str:
    """What a value is, in the words of someone who writes YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case _:
            return "a map"


def word(known: Sequence[str], later: Sequence[str] = ()) -> BeforeValidator:
    """One of a closed list; `later` are those whose feature is not built yet."""

    def check(value: object) -> object:
        if not isinstance(value, str):
            return value  # the type behind says what was expected
        if value in later:
            raise not_built(f"`{value}` is not built yet, expected {one_of(known)}")
        if value not in known:
            near = suggestion(value, [*known, *later])
            raise bad_value(f"expected {one_of(known)}, found `{value}`{near}")
        return value

    return BeforeValidator(check)


def _refuse_insecure(value: object) -> object:
    if value is True:
        raise not_built("plain text outside loopback is not built yet, leave the key out")
    return value


# ---------------------------------------------------------------- names


_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def origin_of(source: Mapping[str, Any]) -> str | None:
    """Who brings the values of a source of `Configuration.describe()`, as the core writes origins: a SPIFFE ID,
    `poll:FEED` or `ssf:FEED`; None where values come with the request."""
    if "publisher" in source:
        return str(source["publisher"])
    return f"{source['kind']}:{source['feed']}" if "feed" in source else None


def is_trust_domain(text: str) -> bool:
    """SPIFFE ID specification, section 2.1: lower case only, nothing is folded."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def spiffe_trust_domain(text: str) -> str | None:
    """The trust domain of a well-formed SPIFFE ID; None if it is no SPIFFE ID."""
    if not text.startswith("spiffe://") or len(text.encode(errors="replace")) > MAX_SPIFFE_ID_BYTES:
        return None
    domain, *segments = text.removeprefix("spiffe://").split("/")
    good = is_trust_domain(domain) and all(_SEGMENT.fullmatch(s) and s not in (".", "..") for s in segments)
    return domain if good else None


def _trust_domain(text: str) -> str:
    if text.startswith("spiffe://"):
        raise bad_value(f"expected the bare name of a trust domain such as `prod.example`, found `{text}`")
    if not is_trust_domain(text):
        raise bad_value(f"expected 1 to 255 of a-z, 0-9, `.`, `-` and `_`, found `{text}`")
    return text


def _spiffe_id(text: str) -> str:
    if spiffe_trust_domain(text) is None:
        raise bad_value(f"expected a SPIFFE ID such as `spiffe://prod.example/ns/a/sa/b`, found `{text}`")
    return text


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        # the value is not repeated: it may be the token itself
        raise bad_value("expected SHA-256 over the token's bytes as 64 lower-case hex digits")
    return text


def instant(value: object) -> datetime:
    """An RFC 3339 time, in UTC."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise bad_value(f"expected an RFC 3339 time such as `2026-12-31T00:00:00Z`, found `{value}`")


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise bad_value("expected a path")
    return text


def _on_full(text: str) -> str:
    word, _, ms = text.partition(":")
    if text != "deny" and not (
        word == "block" and re.fullmatch(r"[1-9][0-9]{0,4}", ms) and int(ms) <= MAX_BLOCK_MS
    ):
        near = suggestion(word, ["deny", "block"])
        raise bad_value(
            f"expected `deny` or `block:` and 1 to {MAX_BLOCK_MS} milliseconds, found `{text}`{near}"
        )
    return text


def _state(text: str) -> str:
    scheme, _, path = text.partition(":")
    if scheme != "sqlite" or not path or "\0" in path or path.startswith("//"):
        raise bad_value(f"expected `sqlite:` and a path such as `sqlite:var/state.db`, found `{text}`")
    return text


# ---------------------------------------------------------------- addresses


@dataclass(frozen=True, slots=True)
class Address:
    """Where a door opens: TCP or a Unix socket."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: there is plain text, and nowhere else."""
        return self.path is not None or _is_loopback(self.host, bracketed=":" in self.host)

    @staticmethod
    def parse_anywhere(value: object) -> Address:
        """Reads a numeric address, `localhost:9191` or `unix:///path`. Which need TLS, the settings as a whole say."""
        if isinstance(value, Address):
            return value
        if not isinstance(value, str):
            raise bad_value(f"{_EXPECTED_ANYWHERE}, found {kind_of(value)}")
        if value.startswith("unix:"):
            return _unix(value)
        bare, bracketed, port = _host_and_port(value, _EXPECTED_ANYWHERE)
        if not _is_numeric(bare, bracketed=bracketed) and not (bare == "localhost" and not bracketed):
            raise bad_value(f"{_EXPECTED_ANYWHERE}, found `{value}`")
        return Address(bare, port)

    @staticmethod
    def parse(value: object) -> Address:
        """Reads `127.0.0.1:9191`, `[::1]:9191`, `localhost:9191` or `unix:///path`; port 0: any free one."""
        if isinstance(value, Address):
            return value
        if not isinstance(value, str):
            raise bad_value(f"{_EXPECTED_ADDRESS}, found {kind_of(value)}")
        if value.startswith("unix:"):
            return _unix(value)
        bare, bracketed, port = _host_and_port(value, _EXPECTED_ADDRESS)
        if not _is_loopback(bare, bracketed=bracketed):
            raise bad_value(
                f"expected a place on this machine, 127.0.0.0/8, `[::1]`, `localhost` or `unix:///path`: `{value}`"
            )
        return Address(bare, port)

    @staticmethod
    def parse_optional(value: object) -> Address | None:
        """The same, or nothing."""
        return None if value is None else Address.parse(value)

    @staticmethod
    def parse_with_tls(value: object) -> Address | None:
        """Reads an address that mutual TLS guards: any numeric one, or `localhost`."""
        if value is None or isinstance(value, Address):
            return value
        if not isinstance(value, str):
            raise bad_value(f"{_EXPECTED_TLS_ADDRESS}, found {kind_of(value)}")
        bare, bracketed, port = _host_and_port(value, _EXPECTED_TLS_ADDRESS)
        if not _is_numeric(bare, bracketed=bracketed) and not (bare == "localhost" and not bracketed):
            raise bad_value(f"{_EXPECTED_TLS_ADDRESS}, found `{value}`")
        return Address(bare, port)


_EXPECTED_ADDRESS = "expected an address such as `127.0.0.1:9191` or `unix:///path`"
_EXPECTED_ANYWHERE = (
    "expected an address such as `127.0.0.1:9191`, `0.0.0.0:9191` with TLS, or `unix:///path`"
)
_EXPECTED_TLS_ADDRESS = "expected a numeric address such as `0.0.0.0:9393` or `[::1]:9393`"


def _host_and_port(value: str, expected: str) -> tuple[str, bool, int]:
    """The host without its brackets, whether it had some, and the port."""
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > MAX_PORT:
        raise bad_value(f"{expected}, found `{value}`")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return bare, bare != host, int(port)


def _unix(value: str) -> Address:
    path = value.removeprefix("unix://")
    if path == value or not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise bad_value(f"expected `unix:///path` with an absolute path, found `{value}`")
    if len(path.encode(errors="replace")) > MAX_SOCKET_PATH_BYTES:
        raise bad_value(f"a socket path has at most {MAX_SOCKET_PATH_BYTES} bytes, found `{value}`")
    return Address("", 0, path)


def _is_loopback(host: str, *, bracketed: bool) -> bool:
    if host == "localhost" and not bracketed:
        return True
    return _is_numeric(host, bracketed=bracketed) and ipaddress.ip_address(host).is_loopback


def _is_numeric(host: str, *, bracketed: bool) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return bracketed == isinstance(address, ipaddress.IPv6Address)


# ---------------------------------------------------------------- spans, headers, templates


_SPAN = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MAX_SPAN_S = 366 * 86_400.0
"""A year: what is longer is a slip of the keyboard, or no short-lived thing."""
MAX_LONG_SPAN_S = 30 * 366 * 86_400.0
"""Longer than any rule asks for that records be kept."""
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
"""A name as Envoy writes it: a token of RFC 9110 section 5.6.2 in lower case."""
_TEMPLATE = re.compile(
    r"(spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*/)?\{([A-Za-z0-9_]{1,64})\}((/[A-Za-z0-9._-]+)*)"
)


def span_s(value: object) -> float:
    """A span such as `30s` or `5m`, in seconds; a number has been read already."""
    return _span_s(value, MAX_SPAN_S, "`30s`, `5m` or `1h`, of a year at most")


def long_span_s(value: object) -> float:
    """A span in which things are kept, in seconds."""
    return _span_s(value, MAX_LONG_SPAN_S, "`24h` or `90d`, of thirty years at most")


def moment(text: str, now: datetime, span: Callable[[str], float]) -> datetime | None:
    """How long ago, as `span` reads it, or an RFC 3339 time; None for what is neither."""
    with contextlib.suppress(PydanticCustomError):
        return now - timedelta(seconds=span(text))
    with contextlib.suppress(PydanticCustomError):
        return instant(text)
    return None


def _span_s(value: object, most: float, expected: str) -> float:
    if isinstance(value, float):
        return value
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= most:
        shown = f"`{value}`" if isinstance(value, str) else kind_of(value)
        raise bad_value(f"expected a span such as {expected}, found {shown}")
    return seconds


def span_text(seconds: float) -> str:
    """A span as it is written: a whole number of the largest unit."""
    for unit, size in reversed(_UNITS.items()):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms"


def _header(text: str) -> str:
    if _HEADER.fullmatch(text) is None:
        raise bad_value(f"expected the name of a header in lower case, found `{text}`")
    if text.startswith("x-signalwarden-") or text == "x-forwarded-client-cert":
        raise bad_value(f"`{text}` has a meaning of its own, expected another header")
    return text


def _url(text: str) -> str:
    try:
        check_url(text)
    except FeedError as error:
        raise bad_value(str(error)) from error
    return text


def _template(text: str) -> str:
    """One claim in braces, as a segment of a SPIFFE ID or alone."""
    found = _TEMPLATE.fullmatch(text)
    if (
        found is None
        or (found[1] is None and found[4])
        or spiffe_trust_domain((found[1] or "spiffe://a/x").rstrip("/")) is None
    ):
        example = "`spiffe://prod.example/oauth/{client_id}` or `{sub}`"
        raise bad_value(f"expected a SPIFFE ID with one claim in braces such as {example}, found `{text}`")
    return text


# ---------------------------------------------------------------- types of the models


class Strict(BaseModel):
    """A part of the settings: no unknown key, no conversion, no change."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


# Each with its JSON Schema beside the validator, so that a wrong value gives one finding in our words, not two.

TrustDomain = Annotated[
    str,
    AfterValidator(_trust_domain),
    WithJsonSchema({"type": "string", "pattern": f"^{_TRUST_DOMAIN.pattern}$"}),
]
SpiffeId = Annotated[
    str,
    AfterValidator(_spiffe_id),
    WithJsonSchema({"type": "string", "pattern": "^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*$"}),
]
Digest = Annotated[
    str, AfterValidator(_digest), WithJsonSchema({"type": "string", "pattern": f"^{_DIGEST.pattern}$"})
]
Instant = Annotated[
    datetime, PlainValidator(instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
OnFull = Annotated[
    str,
    AfterValidator(_on_full),
    WithJsonSchema({"type": "string", "pattern": "^(deny|block:[1-9][0-9]{0,4})$"}),
]
FilePath = Annotated[str, AfterValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]
StatePath = Annotated[
    str, AfterValidator(_state), WithJsonSchema({"type": "string", "pattern": "^sqlite:(?!//).+$"})
]
DoorAddress = Annotated[
    Address,
    PlainValidator(Address.parse_anywhere),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(unix:///.+|[0-9.]+:[0-9]+|\[[0-9A-Fa-f:.]+\]:[0-9]+|localhost:[0-9]+)$",
        }
    ),
]
TlsAddress = Annotated[
    Address | None,
    PlainValidator(Address.parse_with_tls),
    PlainSerializer(lambda address: None if address is None else str(address), return_type=str | None),
    WithJsonSchema(
        {"type": ["string", "null"], "pattern": r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]|localhost):[0-9]+$"}
    ),
]
Insecure = Annotated[bool, BeforeValidator(_refuse_insecure), WithJsonSchema({"const": False})]
Duration = Annotated[
    float,
    PlainValidator(span_s),
    PlainSerializer(span_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_SPAN.pattern}$"}),
]
"""In seconds; written as a number and a unit."""
LongDuration = Annotated[
    float,
    PlainValidator(long_span_s),
    PlainSerializer(span_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_SPAN.pattern}$"}),
]
"""The same, of up to thirty years: how long something is kept."""
HeaderName = Annotated[
    str, AfterValidator(_header), WithJsonSchema({"type": "string", "pattern": f"^{_HEADER.pattern}$"})
]
Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "format": "uri"})]
PrincipalTemplate = Annotated[
    str, AfterValidator(_template), WithJsonSchema({"type": "string", "pattern": f"^{_TEMPLATE.pattern}$"})
]
SocketAddress = Annotated[
    Address | None,
    PlainValidator(Address.parse_optional),
    PlainSerializer(lambda address: None if address is None else str(address), return_type=str | None),
    WithJsonSchema(
        {
            "type": ["string", "null"],
            "pattern": r"^(unix:///.+|127\.[0-9.]+:[0-9]+|\[::1\]:[0-9]+|localhost:[0-9]+)$",
        }
    ),
]
"""A socket of this machine, or none."""
