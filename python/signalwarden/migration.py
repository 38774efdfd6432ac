"""From policies that see whole requests to governed ones: what each reads outside the register, and a draft of the
register and the policies that would do without.

A draft is no translation. It replaces each reference by the nearest governed one and marks it; whether a policy that
trusted a header may go on doing so is what a person has to decide.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from signalwarden.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["MARK", "Drafted", "Read", "draft", "listing", "reads"]

MARK: Final = "# TODO review"
ACTION: Final = "request.send"
TAB: Final = 4
"""Columns that a tab takes where places in Rego are told."""
REVIEW_AFTER: Final = timedelta(days=90)
HTTP: Final = ("attributes", "request", "http")
# What the route and the identity say already; no signal is needed for these.
GOVERNED: Final[Mapping[tuple[str, ...], str]] = {
    (*HTTP, "method"): "input.request.method",
    (*HTTP, "path"): "input.request.path",
    (*HTTP, "host"): "input.request.host",
    (*HTTP, "headers", ":method"): "input.request.method",
    (*HTTP, "headers", ":path"): "input.request.path",
    (*HTTP, "headers", ":authority"): "input.request.host",
    ("attributes", "source", "principal"): "input.identity.id",
    ("source_principal",): "input.identity.id",
}
PARSED_PATH: Final = 'split(trim_left(input.request.path, "/"), "/")'
CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-forwarded-client-cert"})
# Filters of Envoy whose word counts for more than the caller's own (docs/register.md).
SOURCED: Final = frozenset(
    f"envoy.filters.http.{name}"
    for name in ("jwt_authn", "basic_auth", "ext_authz", "ext_proc", "ratelimit", "rbac", "set_metadata")
)
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEP: Final = re.compile(r'\.([A-Za-z_][A-Za-z0-9_]*)|\[("(?:[^"\\]|\\.)*"|[^\]\[]*)\]')
_IMPORT: Final = re.compile(r"^\s*import\s+input\b")


@dataclass(frozen=True, slots=True)
class Read:
    """A place where a policy reads the request outside the register."""

    file: str
    line: int
    column: int
    rule: str
    path: tuple[str | None, ...]

    @property
    def text(self) -> str:
        """The reference, written out: `input.attributes.request.http.headers["x-user"]`."""
        return "input" + "".join(map(_step, self.path))


@dataclass(slots=True)
class Drafted:
    """What `draft` wrote."""

    directory: Path
    signals: tuple[str, ...]
    files: tuple[str, ...]
    left: tuple[Read, ...]
    """References that have nothing governed to stand for them."""


def _step(step: str | None) -> str:
    if step is None:
        return "[_]"
    return f".{step}" if _PLAIN.fullmatch(step) else f"[{json.dumps(step)}]"


def reads(described: Mapping[str, Any]) -> list[Read]:
    """Of `Configuration.describe()`, sorted by place."""
    found = {
        Read(read["file"], read["line"], read["column"], read["rule"], tuple(read["path"]))
        for read in described.get("reads_outside", ())
    }
    return sorted(found, key=lambda read: (read.file, read.line, read.column, read.rule, read.text))


def listing(found: Iterable[Read]) -> Iterator[str]:
    """One sentence for each place, in the shape of a declared exception."""
    for read in found:
        yield f"{read.file}:{read.line}:{read.column}: `{read.rule}` reads `{read.text}`"


# ---- what stands for a reference --------------------------------------------------------------------------


@dataclass(slots=True)
class _Register:
    """The contracts, arguments and facts that a draft needs, as they are found."""

    today: date
    contracts: dict[str, dict[str, Any]] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def governed(self, path: tuple[str | None, ...]) -> tuple[int, str] | None:
        """How many steps of a path something governed stands for, and what; None if nothing does."""
        for known, text in GOVERNED.items():
            if path[: len(known)] == known:
                return len(known), text
        match path:
            case ("attributes", "request", "http", "headers", str(name), *_):
                return self._header(name)
            case ("attributes", "contextExtensions", str(key), *_):
                name = _name("extension", key)
                self.facts[name] = "TODO"
                return 3, self._signal(
                    name,
                    f"context extension {key}",
                    {"kind": "route", "fact": name},
                    "authoritative",
                    "grant",
                )
            case ("attributes", "metadataContext", "filterMetadata", str(space), *keys):
                return self._metadata(space, keys)
            case ("parsed_query", str(name), *_):
                self.query[name] = "string?"
                # Each is a list there, and one value here.
                return (3 if len(path) > 2 else 2), f"input.request.args{_step(name)}"
            case ("parsed_body", str(name), *_):
                argument = f"body_{name}" if name in self.query else name
                self.body[argument] = f"/{name.replace('~', '~0').replace('/', '~1')}"
                return 2, f"input.request.args{_step(argument)}"
            case ("parsed_path", *_):
                return 1, PARSED_PATH
        return None

    def _header(self, name: str) -> tuple[int, str] | None:
        if name in CREDENTIALS or name.startswith(("x-signalwarden-", ":")):
            return None
        source = {"kind": "header", "header": name}
        return 5, self._signal(_name("", name), f"header {name}", source, "self_asserted", "restrict")

    def _metadata(self, space: str, keys: list[str | None]) -> tuple[int, str] | None:
        way = [key for key in keys if key is not None]
        if not way or len(way) < len(keys):
            return None
        source: dict[str, Any] = {"kind": "envoy_metadata", "namespace": space, "key": way}
        sourced = space in SOURCED
        if sourced:
            source["filter"] = space
        assurance, influence = ("sourced", "grant") if sourced else ("self_asserted", "restrict")
        said = f"metadata {'/'.join(way)} of {space}"
        return 4 + len(way), self._signal(_name("", way[-1]), said, source, assurance, influence)

    def _signal(self, name: str, said: str, source: dict[str, Any], assurance: str, influence: str) -> str:
        source = {**source, "assurance": assurance}
        number, free = 2, name
        while free in self.contracts and self.contracts[free]["sources"] != [source]:
            free, number = f"{name}_{number}", number + 1
        self.contracts[free] = {
            "type": "string",
            "description": f"TODO: what the {said} says",
            "owner": "todo@example.invalid",
            "purpose": "TODO: what it is used for",
            "subject": "request",
            "sources": [source],
            "influence": influence,
            "used_by": [ACTION],
            "review_by": (self.today + REVIEW_AFTER).isoformat(),
        }
        return f"input.signals.{free}"


def _name(prefix: str, text: str) -> str:
    """A name that a signal may have."""
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "value"
    name = f"{prefix}_{plain}" if prefix else plain
    return (name if name[0].isalpha() else f"s_{name}")[:60]


# ---- policies ---------------------------------------------------------------------------------------------


def _rewritten(text: str, found: Iterable[Read], register: _Register) -> tuple[str, list[Read]]:
    """A policy with its references replaced, each line marked; and those that nothing stands for."""
    lines = text.split("\n")
    left: list[Read] = []
    notes: dict[int, list[str]] = {}
    places = {(read.line, read.column): read for read in found}
    # From the end, so that the columns of what is still to come stay.
    for (line, column), read in sorted(places.items(), reverse=True):
        if not 1 <= line <= len(lines) or _IMPORT.match(lines[line - 1]):
            continue
        new = _replaced(lines[line - 1], _index(lines[line - 1], column), read, register)
        if new is None:
            left.append(read)
            notes.setdefault(line, []).insert(0, f"nothing governed stands for `{read.text}`")
        else:
            lines[line - 1] = new
            notes.setdefault(line, []).insert(0, f"was `{read.text}`")
    for number, written in enumerate(lines, start=1):
        if _IMPORT.match(written):
            lines[number - 1] = f"{MARK}: was `{written.strip()}`"
        elif number in notes:
            lines[number - 1] = f"{written}  {MARK}: {'; '.join(notes[number])}"
    return "\n".join(lines), sorted(left, key=lambda read: (read.line, read.column))


def _index(line: str, column: int) -> int:
    """Where a column is: a tab takes four."""
    at, width = 0, 1
    while at < len(line) and width < column:
        width += TAB if line[at] == "\t" else 1
        at += 1
    return at


def _replaced(line: str, start: int, read: Read, register: _Register) -> str | None:
    """A line with the reference at a place replaced; None if nothing governed stands for it."""
    governed = register.governed(read.path)
    head = _PLAIN.match(line, start)
    if governed is None or head is None:
        return None
    consumed, text = governed
    # The last steps stand in the text; the first may be behind an alias.
    ends = [head.end()]
    while len(ends) <= len(read.path) and (step := _STEP.match(line, ends[-1])):
        ends.append(step.end())
    kept = len(read.path) - consumed
    written = len(ends) - 1
    if kept > written:
        return None
    return line[:start] + text + line[ends[written - kept] :]


# ---- files ------------------------------------------------------------------------------------------------


def draft(
    files: Mapping[str, bytes], described: Mapping[str, Any], query: str, target: Path, today: date
) -> Drafted:
    """Writes a directory: the policies with their references replaced, the register and the routes that they need. What
    is wrong with it, `check` says. `files`: those of the directory. Raises BadInputError."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInputError(f"`{target}` is not an empty directory: a draft would mix its files with yours")
    found = reads(described)
    register = _Register(today)
    written: dict[str, str] = {}
    left: list[Read] = []
    for name, content in sorted(files.items()):
        if name.endswith(".rego"):
            own = [read for read in found if read.file == name]
            written[name], unknown = _rewritten(content.decode("utf-8"), own, register)
            left += unknown
        elif name in ("entities.cedarschema", "entities.json", "data.json") or name.endswith(".cedar"):
            written[name] = content.decode("utf-8")
    written["signals.yaml"] = _signals(register)
    written["routes.yaml"] = _routes(register)
    written["entities.cedarschema"] = _schema(written.get("entities.cedarschema", ""))
    written["signalwarden.yaml"] = _settings(query)
    for name, text in written.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Drafted(target, tuple(sorted(register.contracts)), tuple(sorted(written)), tuple(left))


def _signals(register: _Register) -> str:
    head = f"""\
{MARK}: a draft, made from what policies read of whole requests. Say who answers for each signal, and look for a
# better source where one is the caller's own word: such a signal may only restrict, so an allow that rests on it is
# refused.
signals:"""
    if not register.contracts:
        return f"{head} {{}}\n"
    entries = (
        f"  {name}:\n" + "".join(f"    {key}: {json.dumps(value)}\n" for key, value in contract.items())
        for name, contract in sorted(register.contracts.items())
    )
    return head + "\n" + "".join(entries)


def _routes(register: _Register) -> str:
    args: dict[str, Any] = {}
    if register.query:
        args["query"] = register.query
    if register.body:
        args["body"] = {
            name: {"pointer": pointer, "type": "string?"} for name, pointer in register.body.items()
        }
    lines = [
        f"{MARK}: a draft. Give each action a route of its own, with the resource that it is about and the arguments",
        "# that it reads.",
        "routes:",
        '  - match: {host: "*", path: "/{*rest}"}',
        f"    action: {ACTION}",
        '    resource: {type: Service, id: "everything"}',
        *([f"    args: {json.dumps(args)}"] if args else []),
        *([f"    facts: {json.dumps(register.facts)}"] if register.facts else []),
        "    tier: runtime",
        "    sensitivity: low",
        "default: deny",
    ]
    return "\n".join(lines) + "\n"


def _schema(known: str) -> str:
    more = [f"entity {name};" for name in ("Workload", "Service") if not re.search(rf"\b{name}\b", known)]
    return known + "".join(f"{line}\n" for line in more)


def _settings(query: str) -> str:
    return f"""\
{MARK}: a draft. Callers need an identity now; see docs/identity.md.
trust_domain: prod.example
policies:
  rego:
    query: {query}
"""
