"""Requests of a directory, made up: its routes, its principals, and values of its signals, those that its policies
compare with among them. Seeded, so that a number stands for the same ones again."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import _core
from signalwarden.decision_log.parts import map_of
from signalwarden.log_reading.telling import entries_of
from signalwarden.policy_tests.model import Case, Place, RequestDraft, SignalGiven, TaskGiven
from signalwarden.values import origin_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from signalwarden.directory import Directory

__all__ = ["Generator"]

STRANGER: Final = "spiffe://{domain}/nobody-lists-me"
WORDS: Final = ("a", "other")
NUMBERS: Final = (-1, 0, 1)
MAX_LITERALS: Final = 200
"""Of each kind, from the texts of policies: enough to meet each comparison of a readable policy."""
LOST: Final = 0.2
"""Share of signals that are missing: what is lost is where languages differ."""
_PARAMETER: Final = re.compile(r"\{(\*?)([A-Za-z0-9_]+)\}")
_STRING: Final = re.compile(r'"((?:[^"\\\n]|\\.){0,64})"')
_NUMBER: Final = re.compile(r"(?<![\w.\"])-?[0-9]{1,15}(?![\w.])")
_OPTIONAL: Final = "?"
_ENUM: Final = re.compile(r"enum\[(.*)\]\Z")


class Generator:
    """Makes cases up, one after the other."""

    def __init__(self, directory: Directory, described: Mapping[str, Any], domain: str, seed: int) -> None:
        # Not for secrets: the same seed gives the same cases.
        self._random = random.Random(seed)  # noqa: S311
        self._routes = entries_of(map_of(_document(directory, "routes.yaml")).get("routes"))
        self._contracts = [one for one in described["signals"] if one["influence"] != "observe"]
        entities = orjson.loads(directory.files.get("entities.json", b"[]"))
        uids = [map_of(entity.get("uid")) for entity in entities if isinstance(entity, dict)]
        listed = [str(uid.get("id")) for uid in uids if uid.get("type") == "Workload"]
        self._principals = [*listed, STRANGER.format(domain=domain)]
        self._ids = [str(uid.get("id")) for uid in uids if uid.get("type") != "Workload"]
        texts = [
            text.decode(errors="replace")
            for name, text in directory.files.items()
            if name.startswith("policies/")
        ]
        self._strings = [*_distinct(found for text in texts for found in _STRING.findall(text)), *WORDS]
        numbers = {int(found) for text in texts for found in _NUMBER.findall(text)}
        near = {number + by for number in sorted(numbers)[:MAX_LITERALS] for by in NUMBERS}
        self._numbers = sorted(near | {*NUMBERS})

    def cases(self, count: int) -> Iterator[Case]:
        """So many; none of a directory without routes."""
        for number in range(count if self._routes else 0):
            yield self._case(number, self._random.choice(self._routes))

    # ------------------------------------------------------------ requests

    def _case(self, number: int, route: Mapping[str, Any]) -> Case:
        place = Place("routes.yaml", 1, 1)
        principal = self._random.choice(self._principals)
        signals = tuple(self._signals(str(route.get("action")), place))
        task = (
            self._task(route, place)
            if route.get("tier") == "jit" or route.get("grant") == "required"
            else None
        )
        return Case(
            name=f"generated {number}",
            place=place,
            request=self._request(route, principal, place),
            signals=signals,
            task=task,
        )

    def _request(self, route: Mapping[str, Any], principal: str, place: Place) -> RequestDraft:
        match, args = map_of(route.get("match")), map_of(route.get("args"))
        method = match.get("method") or "GET"
        method = self._random.choice(method) if isinstance(method, list) else method
        host = str(match.get("host")).replace("*", "x")
        path = _PARAMETER.sub(lambda _: self._segment(), str(match.get("path", "/")))
        headers: dict[str, str | None] = {}
        if grpc := map_of(match.get("grpc")):
            method, headers = "POST", {"content-type": "application/grpc"}
            path = f"/{grpc.get('service')}/{grpc.get('method', 'Call')}"
        query = self._arguments(map_of(args.get("query")))
        if query:
            path += "?" + "&".join(f"{name}={_plain(value)}" for name, value in query.items())
        body = self._body(match, args)
        fields = {"method": str(method), "host": host, "path": path}
        written = None if body is None else orjson.dumps(body).decode()
        return RequestDraft(place, None, None, fields, headers, written, principal)

    def _segment(self) -> str:
        found = self._random.choice([*self._ids, "1"])
        return found if re.fullmatch(r"[A-Za-z0-9_-]+", found) else "1"

    def _body(self, match: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any] | None:
        if mcp := map_of(match.get("mcp")):
            params: dict[str, Any] = {}
            if "tool" in mcp:
                tool = self._at_pointers(map_of(args.get("tool")))
                params = {"name": mcp["tool"], "arguments": tool}
            return {"jsonrpc": "2.0", "id": 1, "method": mcp.get("method"), "params": params}
        return self._at_pointers(map_of(args["body"])) if "body" in args else None

    def _at_pointers(self, declared: Mapping[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for name, value in self._arguments(declared).items():
            said = declared[name]
            pointer = said.get("pointer") if isinstance(said, dict) else None
            *way, last = str(pointer).strip("/").split("/") if pointer else [name]
            at = body
            for step in way:
                at = at.setdefault(step, {})
            at[last] = value
        return body

    def _arguments(self, declared: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, said in declared.items():
            kind = str(said.get("type") if isinstance(said, dict) else said)
            if not kind.endswith(_OPTIONAL) or self._random.random() >= LOST:
                found[name] = self._value(kind.removesuffix(_OPTIONAL))
        return found

    def _task(self, route: Mapping[str, Any], place: Place) -> TaskGiven:
        resource = f"{map_of(route.get('resource')).get('type')}::*"
        return TaskGiven(place, "generated", (str(route.get("action")),), (resource,))

    # ------------------------------------------------------------ signals

    def _signals(self, action: str, place: Place) -> Iterator[SignalGiven]:
        for contract in self._contracts:
            told = any(map(origin_of, contract["sources"]))
            if told and action in contract["used_by"] and self._random.random() >= LOST:
                yield SignalGiven(contract["name"], place, self._value(contract["type"]))

    def _value(self, kind: str) -> Any:
        if found := _ENUM.match(kind):
            return self._random.choice([word.strip() for word in found[1].split(",")])
        match kind:
            case "bool":
                return self._random.random() < 0.5
            case "long":
                return self._random.choice(self._numbers)
            case "decimal":
                return f"{self._random.choice(self._numbers)}.5"
            case "set":
                return self._random.sample(self._strings, min(2, len(self._strings)))
            case "datetime":
                return f"20{self._random.randint(20, 35)}-01-01T00:00:00Z"
            case "ip":
                return f"10.0.0.{self._random.randint(0, 255)}"
            case _:
                return self._random.choice(self._strings)


def _document(directory: Directory, name: str) -> Any:
    text = directory.text(name)
    content = _core.parse_yaml(name, text).json if isinstance(text, str) else None
    return {} if content is None else orjson.loads(content)


def _distinct(found: Iterator[str] | Sequence[str]) -> list[str]:
    return [*dict.fromkeys(found)][:MAX_LITERALS]


def _plain(value: object) -> str:
    """In a query: letters that need no escape."""
    text = orjson.dumps(value).decode().strip('"')
    return text if re.fullmatch(r"[A-Za-z0-9_.-]+", text) else "a"
