"""The served directory in the words of others: routes, principals, signals and policies, as Rego with a data document,
or as Cedar with a table.

Everything is read from the files that signalwarden itself serves, so no peer can have other policies or other data.
What can't be translated faithfully is a `BenchError`, never left out.

One thing has to be written down for the others that signalwarden does by itself: a forbid whose signal is missing or
stale must count (its I2). In plain Cedar and in Rego such a rule simply does not apply. So each translated forbid also
holds where a signal that it reads is unavailable, as a careful author would write it; a permit needs its signals.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bench.stage import BenchError
from signalwarden import _core

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Policy", "Route", "Source", "cedar", "rego", "source", "table"]

_POLICY: Final = re.compile(
    r'@id\("(?P<name>[^"]+)"\)\n'
    r'(?P<effect>permit|forbid) \(principal, action == Action::"(?P<action>[^"]+)", resource\)\n'
    r"when \{ (?P<condition>.+) \};\n"
)
_COMMENT: Final = re.compile(r"\s*//[^\n]*")
_HAS_SIGNAL: Final = re.compile(r"context\.signals has (\w+)")
_HAS_ARGUMENT: Final = re.compile(r"context\.request\.args has (\w+)")
_SIGNAL: Final = re.compile(r"context\.signals\.(\w+)")

# Each kind of conjunct that the bench's policies have, its Rego, and the Rego of its opposite. `s` is an object of the
# fresh signals, so a reading of another one is undefined.
_REGO: Final = (
    (r"context\.signals\.(\w+)", r"s.\1", r"s.\1 == false"),
    (r'context\.signals\.(\w+) == (-?\d+|"[^"\\]*")', r"s.\1 == \2", r"s.\1 != \2"),
    (r"context\.signals\.(\w+) >= (-?\d+)", r"s.\1 >= \2", r"s.\1 < \2"),
    (r"context\.signals\.(\w+) <= (-?\d+)", r"s.\1 <= \2", r"s.\1 > \2"),
    (r"context\.signals\.(\w+) > (-?\d+)", r"s.\1 > \2", r"s.\1 <= \2"),
    (r"context\.signals\.(\w+) < (-?\d+)", r"s.\1 < \2", r"s.\1 >= \2"),
    (r'context\.signals\.(\w+)\.contains\(("[^"\\]*")\)', r"s.\1[\2]", None),
    (
        r'context\.signals\.(\w+)\.greaterThan\(decimal\("(-?\d+\.\d+)"\)\)',
        r"s.\1 > \2",
        r"s.\1 <= \2",
    ),
    (r"context\.request\.args\.(\w+) > (-?\d+)", None, r"to_number(input.parsed_query.\1[0]) <= \2"),
    (r'context\.request\.path != "/([^"\\/]*)"', r'input.parsed_path != ["\1"]', None),
)
_PRINCIPAL: Final = """\
principal := input.attributes.source.principal if {
	input.attributes.source.principal != ""
} else := uri if {
	elements := split(input.attributes.request.http.headers["x-forwarded-client-cert"], ",")
	some pair in split(elements[count(elements) - 1], ";")
	startswith(pair, "URI=")
	uri := substring(pair, 4, -1)
}"""
_SPANS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Route:
    """A route as its file has it: a host with a wildcard at its end, one method, a path with `{name}` for a segment."""

    action: str
    host: str
    method: str
    path: str
    resource_type: str
    resource: str
    query: dict[str, str]
    """Arguments of the query: name to type, `?` where it is optional."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, its condition still in Cedar."""

    name: str
    effect: str
    action: str
    condition: str

    @property
    def signals(self) -> list[str]:
        """The signals that it reads, each once, in their order."""
        return list(dict.fromkeys(_SIGNAL.findall(self.condition)))

    @property
    def conjuncts(self) -> list[str]:
        """What must hold at once, without the guards that say that something is there."""
        parts = self.condition.split(" && ")
        return [
            part for part in parts if not _HAS_SIGNAL.fullmatch(part) and not _HAS_ARGUMENT.fullmatch(part)
        ]

    @property
    def arguments(self) -> list[str]:
        """The arguments that it says must be there."""
        return _HAS_ARGUMENT.findall(self.condition)


@dataclass(frozen=True, slots=True)
class Source:
    """A directory, read."""

    trust_domain: str
    routes: list[Route]
    policies: list[Policy]
    principals: list[str]
    types: dict[str, str]
    """Signal to its type."""
    max_age_s: dict[str, int]
    signals: list[dict[str, Any]]
    """As in a body of POST /v1/signals."""
    entities: list[dict[str, Any]]

    def by_action(self) -> dict[str, list[Policy]]:
        """Policies of each action that a route gives."""
        sorted_out: dict[str, list[Policy]] = {route.action: [] for route in self.routes}
        for policy in self.policies:
            if policy.action not in sorted_out:
                raise BenchError(f"no route gives the action `{policy.action}` of the policy `{policy.name}`")
            sorted_out[policy.action].append(policy)
        return sorted_out


def source(directory: Path) -> Source:
    """Reads a directory of `bench.directory.make` and the `signals.json` beside its policies."""
    settings, routes, register = (
        _yaml(directory / name) for name in ("signalwarden.yaml", "routes.yaml", "signals.yaml")
    )
    if routes["default"] != "deny":
        raise BenchError("only routes with `default: deny` are translated")
    texts = [file.read_text(encoding="utf-8") for file in sorted(directory.glob("policies/*.cedar"))]
    entities = json.loads((directory / "entities.json").read_text(encoding="utf-8"))
    try:
        signals = json.loads((directory / "signals.json").read_bytes())["signals"]
    except OSError as error:
        raise BenchError(f"the signals of the peers can't be read: {error}") from error
    return Source(
        trust_domain=settings["trust_domain"],
        routes=[_route(route) for route in routes["routes"]],
        policies=[policy for text in texts for policy in policies_of(text)],
        principals=[entity["uid"]["id"] for entity in entities if entity["uid"]["type"] == "Workload"],
        types={name: contract["type"] for name, contract in register["signals"].items()},
        max_age_s={name: seconds(contract["max_age"]) for name, contract in register["signals"].items()},
        signals=signals,
        entities=entities,
    )


def policies_of(text: str) -> Iterator[Policy]:
    """The policies of a file that the bench wrote."""
    at = 0
    while text[at:].strip():
        if comment := _COMMENT.match(text, at):
            at = comment.end()
            continue
        start = at + len(text[at:]) - len(text[at:].lstrip())
        found = _POLICY.match(text, start)
        if found is None:
            raise BenchError(
                f"this policy is not written as those of the bench: `{text[start:].splitlines()[0]}`"
            )
        yield Policy(found["name"], found["effect"], found["action"], found["condition"])
        at = found.end()


def seconds(span: str) -> int:
    """`24h` and its like."""
    if not span[:-1].isdecimal() or span[-1] not in _SPANS:
        raise BenchError(f"`{span}` is not a span of time that is translated")
    return int(span[:-1]) * _SPANS[span[-1]]


def _yaml(file: Path) -> Any:
    parsed = _core.parse_yaml(file.name, file.read_text(encoding="utf-8")).json
    if parsed is None:
        raise BenchError(f"`{file.name}` of the bench's directory can't be read")
    return json.loads(parsed)


def _route(entry: dict[str, Any]) -> Route:
    match, resource = entry["match"], entry["resource"]
    unknown = entry.keys() - {"match", "action", "resource", "args", "system", "tier", "sensitivity"}
    if unknown or match.keys() != {"host", "method", "path"} or entry["tier"] != "runtime":
        raise BenchError(f"the route of `{entry['action']}` has more than can be translated")
    if not match["host"].endswith(".*") or "*" in match["path"]:
        raise BenchError(f"the route of `{entry['action']}` has wildcards that are not translated")
    arguments = entry.get("args", {})
    query = arguments.get("query", {})
    if arguments.keys() - {"query"} or any(kind != "long?" for kind in query.values()):
        raise BenchError(f"the route of `{entry['action']}` has arguments that are not translated")
    name = resource["id"]
    return Route(
        action=entry["action"],
        host=match["host"],
        method=match["method"],
        path=match["path"],
        resource_type=resource["type"],
        resource=name.strip("{}"),
        query=query,
    )


# ---- Cedar in Go ----------------------------------------------------------------------------------------


def cedar(directory: Source) -> str:
    """The policies, as they are, but for the forbids, which hold without their signal, too."""
    return "\n".join(
        f'@id("{policy.name}")\n{policy.effect} (principal, action == Action::"{policy.action}", resource)\n'
        f"when {{ {_cedar_condition(policy)} }};\n"
        for policy in directory.policies
    )


def _cedar_condition(policy: Policy) -> str:
    if policy.effect == "permit" or not policy.signals:
        return policy.condition
    without = " || ".join(f"!(context.signals has {name})" for name in policy.signals)
    holds = " && ".join(policy.conjuncts)
    return f"{without} || ({holds})" if len(policy.conjuncts) > 1 else f"{without} || {holds}"


def table(directory: Source) -> dict[str, Any]:
    """What the Go server on cedar-go has beside its policies: routes, entities, signals with how long each is good."""
    return {
        "trust_domain": directory.trust_domain,
        "routes": [
            {
                "action": route.action,
                "host": route.host,
                "method": route.method,
                "path": route.path,
                "resource_type": route.resource_type,
                "resource": route.resource,
                "query": sorted(route.query),
            }
            for route in directory.routes
        ],
        "entities": directory.entities,
        "signals": [
            {
                **signal,
                "type": directory.types[signal["name"]],
                "max_age_s": directory.max_age_s[signal["name"]],
            }
            for signal in directory.signals
        ],
    }


# ---- Rego -----------------------------------------------------------------------------------------------


def rego(directory: Source, *, xfcc: bool = False) -> dict[str, str]:
    """Files for OPA: `data.json`, `policy/routes.rego`, and one module for each action, by name.

    The action is looked up first and the module of that action then, as OPA's documentation advises for many policies
    (dynamic composition): OPA's index over rules would have to be asked for each of them otherwise. `xfcc`: who asks
    may stand in `x-forwarded-client-cert`, which OPA's own plugin does not read."""
    routes = _rego_routes(directory, xfcc=xfcc)
    files = {"data.json": json.dumps(_rego_data(directory)), "policy/routes.rego": routes}
    arguments = {route.action: route.query for route in directory.routes}
    for number, (action, policies) in enumerate(directory.by_action().items()):
        files[f"policy/action-{number:05d}.rego"] = _rego_module(action, policies, arguments[action])
    return files


def _rego_data(directory: Source) -> dict[str, Any]:
    """What a feed would push into OPA's store. Beside the values of a principal stands until when each is good, and
    until when all are, so that policies mostly judge their age by one comparison."""
    signals: dict[str, dict[str, Any]] = {}
    for signal in directory.signals:
        name = signal["name"]
        until = _nanoseconds(signal["observed_at"]) + directory.max_age_s[name] * 1_000_000_000
        kept = signals.setdefault(signal["subject"], {"values": {}, "until": {}, "all_until": until})
        kept["values"][name] = _rego_value(signal["value"], directory.types[name])
        kept["until"][name] = until
        kept["all_until"] = min(kept["all_until"], until)
    return {"signals": signals}


def _rego_value(value: Any, kind: str) -> Any:
    """A set as an object, in which OPA looks a member up; a decimal as a number."""
    if kind == "set":
        return dict.fromkeys(value, True)
    return float(value) if kind == "decimal" else value


def _nanoseconds(text: str) -> int:
    """RFC 3339 in UTC to nanoseconds since 1970, without a float between."""
    moment = datetime.fromisoformat(text)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def _rego_routes(directory: Source, *, xfcc: bool) -> str:
    who = "principal" if xfcc else "input.attributes.source.principal"
    lines = [
        "# Who asks, for what, and whether the policies of that action let it in. Written by",
        "# bench/peers/translate.py.",
        "package peer",
        "",
        "default allow := false",
        "",
        "# Who has no signals is let in by no policy, so nobody else needs to be asked who it is.",
        "allow if data.peer.actions[action].allow",
        "",
        *([_PRINCIPAL, ""] if xfcc else []),
        "# The signals that are not too old: mostly all of them.",
        "fresh := kept.values if {",
        f"\tkept := data.signals[{who}]",
        "\ttime.now_ns() < kept.all_until",
        "} else := {name: value |",
        f"\tkept := data.signals[{who}]",
        "\tsome name, value in kept.values",
        "\ttime.now_ns() < kept.until[name]",
        "}",
    ]
    for route in directory.routes:
        segments = [
            "_" if part.startswith("{") else json.dumps(part) for part in route.path.strip("/").split("/")
        ]
        lines += [
            "",
            f'action := "{route.action}" if {{',
            f'\tinput.attributes.request.http.method == "{route.method}"',
            f"\tinput.parsed_path = [{', '.join(segments)}]",
            f'\tstartswith(input.attributes.request.http.host, "{route.host.removesuffix("*")}")',
            "}",
        ]
    return "\n".join(lines) + "\n"


def _rego_module(action: str, policies: list[Policy], query: dict[str, str]) -> str:
    permits = [policy for policy in policies if policy.effect == "permit"]
    forbids = [policy for policy in policies if policy.effect == "forbid"]
    blocks = [
        "# The policies of one action. Written by bench/peers/translate.py.",
        f"package peer.actions[{json.dumps(action)}]\n",
        "import data.peer.fresh as s\n",
        _rego_rule("allow", ["permit", *_clear(forbids, None), *(f"{name}_clear" for name in sorted(query))]),
    ]
    for policy in permits:
        body = [_rego_conjunct(policy, part, opposite=False) for part in policy.conjuncts]
        blocks += [f"# {policy.name}", _rego_rule("permit", body)]
    if not permits:
        blocks.append("permit := false\n")
    for name in sorted(query):
        given = f"input.parsed_query.{name}"
        once = [f"count({given}) == 1", f"to_number({given}[0])"]
        blocks.append(f"{name}_clear if not {given}\n")
        blocks.append(_rego_rule(f"{name}_clear", [*once, *_clear(forbids, name)]))
    return "\n".join(blocks)


def _rego_rule(head: str, body: list[str]) -> str:
    inner = "".join(f"\t{line}\n" for line in body)
    return f"{head} if {{\n{inner}}}\n"


def _clear(forbids: list[Policy], argument: str | None) -> Iterator[str]:
    """Lines that must all hold so that no forbid does: the opposite of each, which is undefined, and so does
    not hold, where its signal is. `argument`: of those that read this argument, else of those that read signals.

    One conjunction is what OPA evaluates fastest: a rule for each forbid, and another for its negation, took a sixth
    more. (`not s.posture != "compromised"` would be wrong: OPA looks `s.posture` up outside the negation.)"""
    for policy in forbids:
        if next(iter(policy.arguments), None) != argument:
            continue
        if len(policy.conjuncts) != 1:
            raise BenchError(
                f"the forbid `{policy.name}` reads more than one thing, which is not translated into Rego"
            )
        yield f"# {policy.name}"
        yield _rego_conjunct(policy, policy.conjuncts[0], opposite=True)


def _rego_conjunct(policy: Policy, conjunct: str, *, opposite: bool) -> str:
    for pattern, holds, fails in _REGO:
        found = re.fullmatch(pattern, conjunct)
        replacement = fails if opposite else holds
        if found and replacement is not None:
            return found.expand(replacement)
    raise BenchError(f"`{conjunct}` of the policy `{policy.name}` has no translation into Rego")
