"""Our decoder against Envoy's own types: what a record shows of a generated request is what `envoy-data-plane` reads.

The expected answer is worked out here from the Python objects, after they went through bytes, with Python's own
readers of queries, JSON and percent-encoding; nothing of the core is asked for it.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    EnvoyInternalAddress,
    HeaderMap,
    HeaderValue,
    Metadata,
    Pipe,
    SocketAddress,
)
from envoy_data_plane.envoy.service.auth.v3 import (
    AttributeContext,
    AttributeContextHttpRequest,
    AttributeContextPeer,
    AttributeContextRequest,
    AttributeContextTlsSession,
    CheckRequest,
)
from envoy_data_plane.google.protobuf import Struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalwarden import _core
from tests import asking

EXAMPLES = 1_200
ROUTES = """\
routes:
  - match: {host: "pay.*", method: POST, path: "/v1/accounts/{account}/transfers"}
    action: transfer.create
    resource: {type: Account, id: "{account}"}
    args:
      query: {note: "string?", count: "long?", dry_run: "bool?"}
      body: {amount: {pointer: /amount, type: long}, to: {pointer: /to/name, type: "string?"}}
    tier: runtime
    sensitivity: high
"""
FILES = {
    "routes.yaml": ROUTES,
    "entities.cedarschema": "entity Workload;\nentity Account;\n",
    "policies/all.cedar": "permit (principal, action, resource);\n",
}
PATH = re.compile(r"/v1/accounts/([a-z0-9]+)/transfers")
TRACE = re.compile(r"[^-]*-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?", re.DOTALL)
LONG = range(-(2**63), 2**63)

# ---- requests ---------------------------------------------------------------------------------------------

anything = st.text(max_size=20)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
header_names = st.one_of(words.map(lambda w: f"x-{w}"), anything.filter(bool))
traces = st.one_of(
    st.tuples(*(st.text("0123456789abcdef", min_size=n, max_size=n) for n in (2, 32, 16, 2))).map("-".join),
    anything,
)
longs = st.integers(-(2**64), 2**64)


def rarely(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One in twenty-four is the other: a request has a dozen parts, and most requests should lead somewhere."""
    return st.integers(0, 23).flatmap(lambda n: other if n == 0 else usual)


query_pairs = st.lists(
    st.one_of(
        st.tuples(st.just("note"), anything),
        st.tuples(st.just("count"), rarely(longs.map(str), anything)),
        st.tuples(st.just("dry_run"), st.sampled_from(["true", "false", "True", ""])),
        st.tuples(words.filter(lambda w: w not in ("note", "count")), anything),
    ),
    max_size=3,
)
paths = rarely(
    st.tuples(words, query_pairs).map(
        lambda p: f"/v1/accounts/{p[0]}/transfers" + (f"?{urlencode(p[1])}" if p[1] else "")
    ),
    anything,
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), longs, anything, st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(anything, inner, max_size=2)),
    max_leaves=4,
)
bodies = rarely(
    st.fixed_dictionaries(
        {"amount": rarely(longs, json_values)},
        optional={
            "to": st.one_of(st.fixed_dictionaries({"name": anything}), json_values),
            "other": json_values,
        },
    ).map(lambda body: json.dumps(body, ensure_ascii=False).encode()),
    st.binary(max_size=30),
)
addresses = st.one_of(
    st.builds(
        lambda a, p: Address(socket_address=SocketAddress(address=a, port_value=p)),
        anything,
        st.integers(0, 65535),
    ),
    st.builds(
        lambda a, p: Address(socket_address=SocketAddress(address=a, named_port=p)), anything, anything
    ),
    st.builds(lambda p: Address(pipe=Pipe(path=p)), anything),
    st.builds(
        lambda n, e: Address(
            envoy_internal_address=EnvoyInternalAddress(server_listener_name=n, endpoint_id=e)
        ),
        *(anything, anything),
    ),
)
certificates = rarely(
    st.just(""),
    st.binary(min_size=1, max_size=40).map(
        lambda der: quote(
            "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der).decode() + "-----END CERTIFICATE-----\n"
        )
    ),
)
peers = st.builds(
    AttributeContextPeer,
    address=st.none() | addresses,
    service=anything,
    labels=st.dictionaries(anything, anything, max_size=2),
    principal=rarely(words.map(lambda w: f"spiffe://prod.example/{w}"), st.just("")),
    certificate=certificates,
)
structs = st.dictionaries(
    anything,
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), anything),
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(anything, inner, max_size=2)),
        max_leaves=3,
    ),
    max_size=2,
).map(Struct.from_dict)
metadata = st.none() | st.builds(Metadata, filter_metadata=st.dictionaries(anything, structs, max_size=2))


@st.composite
def requests(draw: st.DrawFn) -> CheckRequest:
    """A `CheckRequest` with every field that the core reads: mostly one that leads somewhere."""
    path = draw(paths)
    host = draw(rarely(words.map(lambda w: f"pay.{w}"), anything))
    method = draw(rarely(st.just("POST"), anything))
    body = draw(bodies)
    named = draw(st.dictionaries(header_names, anything, max_size=3))
    named |= {"content-type": "application/json", "x-envoy-auth-partial-body": "false"}
    if draw(st.booleans()):
        named["traceparent"] = draw(traces)
    for pseudo, value in ((":path", path), (":authority", host), (":method", method)):
        if draw(st.booleans()):
            named[pseudo] = draw(rarely(st.just(value), anything))
    as_list = draw(st.booleans())
    listed = [
        HeaderValue(key=name, value=value)
        if draw(st.booleans())
        else HeaderValue(key=name, raw_value=value.encode())
        for name, value in named.items()
    ]
    if draw(rarely(st.just(False), st.just(True))):
        listed.append(HeaderValue(key=draw(header_names), raw_value=draw(st.binary(max_size=9))))
    http = AttributeContextHttpRequest(
        id=draw(anything),
        method=method,
        path=path,
        host=host,
        scheme=draw(anything),
        protocol=draw(st.sampled_from(["HTTP/1.1", "HTTP/2", ""])),
        size=draw(rarely(st.just(len(body)), st.integers(-2, 100))),
        headers={} if as_list else named,
        header_map=HeaderMap(headers=listed) if as_list else draw(st.none() | st.just(HeaderMap())),
        raw_body=body,
    )
    if draw(st.booleans()) and _is_text(body):
        http.body, http.raw_body = body.decode(), b""
    if draw(rarely(st.just(False), st.just(True))):
        http.headers, http.header_map, http.body, http.raw_body = named, HeaderMap(headers=listed), "{}", body
    moment = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    return CheckRequest(
        attributes=AttributeContext(
            source=draw(rarely(peers, st.none())),
            destination=draw(st.none() | peers),
            request=AttributeContextRequest(time=draw(st.none() | moment), http=http),
            context_extensions=draw(st.dictionaries(anything, anything, max_size=2)),
            metadata_context=draw(metadata),
            route_metadata_context=draw(metadata),
            tls_session=draw(st.none() | st.builds(AttributeContextTlsSession, sni=anything)),
        )
    )


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# ---- what they mean ---------------------------------------------------------------------------------------


class Meaning:
    """What a request says, by Envoy's types. `clear` is false where it says two things at once."""

    def __init__(self, request: CheckRequest) -> None:
        assert request.attributes is not None
        assert request.attributes.request is not None
        assert request.attributes.request.http is not None
        self.http = request.attributes.request.http
        self.source = request.attributes.source or AttributeContextPeer()
        listed = self.http.header_map.headers if self.http.header_map else []
        self.headers = [(_lower(name), value.encode()) for name, value in self.http.headers.items()]
        self.headers += [(_lower(h.key), h.raw_value or h.value.encode()) for h in listed]
        self.body = self.http.raw_body or self.http.body.encode()
        names = [_lower(name) for name in self.http.headers]
        self.clear = (
            not (names and listed)
            and len(names) == len(set(names))
            and not any(h.value and h.raw_value for h in listed)
            and not (self.http.body and self.http.raw_body)
            and self.http.size >= -1
            and all(
                value.decode(errors="replace") == getattr(self.http, field)
                for name, value in self.headers
                for pseudo, field in ((":path", "path"), (":authority", "host"), (":method", "method"))
                if name == pseudo
            )
        )

    def all(self, name: str) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def trace(self) -> tuple[str | None, str | None]:
        found = [value.decode(errors="replace") for value in self.all("traceparent")]
        matched = TRACE.fullmatch(found[0]) if len(found) == 1 else None
        return (matched.group(1), matched.group(2)) if matched else (None, None)

    def routed(self) -> re.Match[str] | None:
        """The account, where method, host and path are those of the route. Hosts here are plain words."""
        good = self.http.method == "POST" and re.fullmatch(r"(?i:pay\.[a-z0-9]+)", self.http.host, re.ASCII)
        return PATH.fullmatch(self.http.path.partition("?")[0]) if good else None

    def args(self) -> dict[str, Any] | None:
        """The arguments that the route names; None where one can't be read as what it is declared to be."""
        whole = self.http.size <= len(self.body) and self.all("x-envoy-auth-partial-body") == [b"false"]
        if not self.body or not whole or self.all("content-type") != [b"application/json"]:
            return None
        if any(value.strip().lower() not in (b"", b"identity") for value in self.all("content-encoding")):
            return None
        try:
            read = self._query() | self._body()
        except (ValueError, KeyError, RecursionError):
            return None
        return read

    def _query(self) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for name, text in parse_qsl(self.http.path.partition("?")[2], keep_blank_values=True):
            if name not in ("note", "count", "dry_run"):
                continue
            if name in read:
                raise ValueError(name)
            read[name] = (
                text
                if name == "note"
                else {"true": True, "false": False}[text]
                if name == "dry_run"
                else _long(text)
            )
        return read

    def _body(self) -> dict[str, Any]:
        body = json.loads(self.body.decode(), object_pairs_hook=_unique)
        read = {"amount": body["amount"]} if isinstance(body, dict) else {}
        if (
            not isinstance(read["amount"], int)
            or isinstance(read["amount"], bool)
            or read["amount"] not in LONG
        ):
            raise ValueError
        to = body.get("to")
        if isinstance(to, dict) and "name" in to:
            if not isinstance(to["name"], str):
                raise ValueError
            read["to"] = to["name"]
        return read


def _lower(name: str) -> str:
    """In ASCII alone: to HTTP, the Kelvin sign is no `k`."""
    return name.encode().lower().decode()


def _long(text: str) -> int:
    number = int(text)
    if str(number) != text or number not in LONG:
        raise ValueError(text)
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


# ---- the comparison ---------------------------------------------------------------------------------------

counts = {"decisions": 0, "allowed": 0, "unclear": 0}


def compare(engine: _core.Engine, request: CheckRequest) -> None:
    sent = bytes(request)
    meaning = Meaning(CheckRequest.parse(sent))
    decision = asking.decide(engine, sent)
    shown, reason = decision.record["request"], decision.reason
    counts["decisions"] += 1
    counts["unclear"] += not meaning.clear
    counts["allowed"] += reason == "allowed"
    if not meaning.clear:
        assert (reason, shown["method"], shown["path"]) == ("malformed_request", "", "")
        return
    assert (shown["method"], shown["host"]) == (meaning.http.method, meaning.http.host)
    assert shown["path"] == meaning.http.path.partition("?")[0]
    assert shown.get("envoy_id", "") == meaning.http.id
    assert (shown.get("trace_id"), shown.get("span_id")) == meaning.trace()
    account = meaning.routed()
    if account is None:
        assert (reason, shown.get("action")) == ("route_unknown", None)
        return
    assert shown["action"] == "transfer.create"
    args = meaning.args()
    if args is None:
        assert (reason, shown.get("args")) == ("malformed_request", None)
        return
    assert shown["resource"] == f'Account::"{account.group(1)}"'
    assert shown["args"] == args
    if not meaning.source.principal:
        assert reason == "identity_missing"
        return
    if meaning.source.certificate:
        # It arrived, and what is no certificate refuses the peer. Good ones: `tests/peers.rs`, and the real Envoy's.
        assert reason == "identity_invalid"
        return
    assert reason == "allowed"
    assert decision.record["principal"]["id"] == meaning.source.principal


def test_what_a_record_shows_is_what_envoys_own_types_say() -> None:
    engine = asking.running(asking.load(FILES))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(requests())
    def holds(request: CheckRequest) -> None:
        compare(engine, request)

    holds()
    print(f"decode: {counts}")
    assert counts["decisions"] >= EXAMPLES
    # The comparison means little if nearly everything is refused at the first step.
    assert counts["allowed"] > EXAMPLES / 10
    assert counts["unclear"] > EXAMPLES / 100
