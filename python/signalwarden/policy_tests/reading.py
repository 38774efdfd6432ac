"""From a file of cases to drafts: strict, each mistake with its place and the nearest word that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden import _core
from signalwarden.errors import Problem
from signalwarden.policy_tests.fields import Node
from signalwarden.policy_tests.model import (
    ABSENT,
    Answer,
    Draft,
    Expected,
    Place,
    RequestDraft,
    SignalGiven,
    TaskGiven,
)
from signalwarden.values import origin_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ReadFile", "Vocabulary", "Written", "read_cases"]

MAX_PARENTS: Final = 8
"""Tasks above a task; the core bounds how often one may be handed on."""
OUTCOMES: Final = ("allow", "deny")
STATES: Final = ("fresh", "stale", "missing", "disputed", "unverified", "future")
GIVEN_STATES: Final = ("missing", "stale", "unverified")
"""What a case can bring about by a word; `disputed` takes two values of one age."""
SENSITIVITIES: Final = ("low", "medium", "high")
ENDINGS: Final = ("completed", "revoked")

REQUEST: Final = (
    *("file", "attributes", "method", "scheme", "host", "path", "headers", "body", "principal", "address"),
)
SIGNAL: Final = ("name", "subject", "value", "age", "state", "by")
TASK: Final = (
    *("type", "actions", "resources", "principal", "client", "workflow", "sensitivity", "environment"),
    *("ttl", "age", "ended", "parent"),
)
EXPECT: Final = (
    *("outcome", "reason", "http_status", "enforced", "determining", "decisive", "refused", "signals"),
)
DEFAULTS: Final = ("request", "signals", "at", "task", "before", "approved_by")
VARIATION: Final = ("name", *DEFAULTS, "begin", "answer", "expect", "without")
CASE: Final = (*VARIATION, "each")


@dataclass(frozen=True)
class Vocabulary:
    """The names that a directory knows."""

    policies: tuple[str, ...]
    signals: Mapping[str, Mapping[str, Any]]
    """Contracts by name."""
    reasons: tuple[str, ...]

    @staticmethod
    def of(described: Mapping[str, Any]) -> Vocabulary:
        """From `Configuration.describe()`."""
        return Vocabulary(
            tuple(policy["id"] for policy in described["policies"]),
            {contract["name"]: contract for contract in described["signals"]},
            tuple(code for code, _, _, live, _ in _core.reasons() if live),
        )


@dataclass(frozen=True, slots=True)
class Written:
    """A case as its file has it, with its variations."""

    draft: Draft
    each: tuple[Draft, ...] | None


@dataclass(frozen=True, slots=True)
class ReadFile:
    """One file of cases."""

    file: str
    defaults: Draft
    cases: tuple[Written, ...]
    findings: tuple[Problem, ...]


def read_cases(file: str, text: str, words: Vocabulary) -> ReadFile:
    """Reads a file. Never raises for what it says."""
    document = _core.parse_yaml(file, text)
    findings = [
        Problem("error", one.file, one.line, one.column, one.code, one.message) for one in document.findings
    ]
    nothing = Draft(Place(file, 1, 1))
    if document.json is None or findings:
        if not findings:
            findings.append(
                Problem("error", file, 1, 1, "wrong_type", "expected a map with `cases`, found nothing")
            )
        return ReadFile(file, nothing, (), tuple(findings))
    root = Node(orjson.loads(document.json), file, document.places, findings)
    reader = _Reader(words)
    fields = root.map(("defaults", "cases"), needed=("cases",)) or {}
    defaults = reader.draft(fields["defaults"], DEFAULTS) if "defaults" in fields else nothing
    cases = fields["cases"].items(least=1) if "cases" in fields else []
    written = tuple(reader.case(case) for case in cases)
    return ReadFile(file, defaults or nothing, tuple(one for one in written if one), tuple(findings))


class _Reader:
    def __init__(self, words: Vocabulary) -> None:
        self._words = words

    # ------------------------------------------------------------ cases

    def case(self, node: Node) -> Written | None:
        fields = node.map(CASE, needed=("name",))
        if fields is None:
            return None
        draft = self._draft(node, fields)
        each = None
        if "each" in fields:
            variations = [self.draft(one, VARIATION, named=True) for one in fields["each"].items(least=1)]
            each = tuple(one for one in variations if one)
        return Written(draft, each)

    def draft(self, node: Node, known: tuple[str, ...], *, named: bool = False) -> Draft | None:
        """Part of a case: a variation, or defaults."""
        fields = node.map(known, needed=("name",) if named else ())
        return None if fields is None else self._draft(node, fields)

    def _draft(self, node: Node, fields: Mapping[str, Node]) -> Draft:
        get = fields.get
        without = get("without")
        return Draft(
            node.place,
            name.text() if (name := get("name")) else None,
            self.request(request) if (request := get("request")) else None,
            self.signals(signals) if (signals := get("signals")) else None,
            at.moment_us() if (at := get("at")) else None,
            self.task(task) if (task := get("task")) else None,
            tuple(one for item in before.items() if (one := self.request(item)))
            if (before := get("before"))
            else None,
            _ids(approved) if (approved := get("approved_by")) else None,
            self.task(begin) if (begin := get("begin")) else None,
            _answer(answer) if (answer := get("answer")) else None,
            self.expect(expect) if (expect := get("expect")) else None,
            *(self.without(without) if without else (None, {})),
        )

    # ------------------------------------------------------------ requests

    def request(self, node: Node) -> RequestDraft | None:
        fields = node.map(REQUEST)
        if fields is None:
            return None
        if "file" in fields and "attributes" in fields:
            fields["attributes"].wrong("one_of", "expected one of `file` and `attributes`, found both")
        attributes = fields.get("attributes")
        if attributes is not None and not isinstance(attributes.value, dict):
            attributes.expected("a map, the `attributes` of a CheckRequest in protobuf JSON")
        texts: dict[str, str] = {
            key: text
            for key in ("method", "scheme", "host", "path")
            if key in fields and (text := fields[key].text())
        }
        return RequestDraft(
            node.place,
            fields["file"].text() if "file" in fields else None,
            attributes.value if attributes is not None else None,
            texts,
            _headers(fields["headers"]) if "headers" in fields else {},
            _body(fields["body"]) if "body" in fields else None,
            _principal(fields["principal"]) if "principal" in fields else None,
            fields["address"].text() if "address" in fields else None,
        )

    # ------------------------------------------------------------ signals

    def signals(self, node: Node) -> tuple[SignalGiven, ...]:
        """A list of entries, or a map from names to values or to what else an entry says."""
        if isinstance(node.value, dict):
            found = [self._named(name, entry) for name, entry in node.entries()]
        else:
            found = [self._listed(item) for item in node.items()]
        return tuple(one for one in found if one)

    def _listed(self, node: Node) -> SignalGiven | None:
        fields = node.map(SIGNAL, needed=("name",))
        if fields is None or "name" not in fields:
            return None
        name = fields["name"].text()
        return self._signal(name, node, fields) if name and self._known(name, fields["name"]) else None

    def _named(self, name: str, node: Node) -> SignalGiven | None:
        if not self._known(name, node):
            return None
        if not isinstance(node.value, dict):
            return SignalGiven(name, node.place, node.value)
        fields = node.map(SIGNAL[1:])
        return None if fields is None else self._signal(name, node, fields)

    def _known(self, name: str, node: Node) -> bool:
        if name in self._words.signals:
            return True
        near = _core.nearest_name(name, [*self._words.signals])
        hint = f", did you mean `{near}`?" if near else ""
        node.wrong("unknown_value", f"no contract has the name `{name}`{hint}")
        return False

    def _signal(self, name: str, node: Node, fields: Mapping[str, Node]) -> SignalGiven:
        state = fields["state"].word(GIVEN_STATES) if "state" in fields else None
        if state == "missing":
            for key in ("value", "age", "by"):
                if key in fields:
                    fields[key].wrong("bad_value", f"a signal that is missing has no `{key}`, leave it out")
        elif "value" not in fields and ("state" not in fields or state is not None):
            node.wrong("missing_key", "expected a `value`, or `state: missing`")
        elif state == "stale" and "age" in fields:
            fields["age"].wrong("bad_value", "`state: stale` says how old it is, leave `age` out")
        return SignalGiven(
            name,
            node.place,
            fields["value"].value if "value" in fields else None,
            fields["subject"].text() if "subject" in fields else None,
            (fields["age"].span_us() or 0) if "age" in fields else 0,
            state,
            fields["by"].text() if "by" in fields else None,
        )

    # ------------------------------------------------------------ tasks

    def task(self, node: Node, depth: int = 0) -> TaskGiven | None:
        fields = node.map(TASK, needed=("type", "actions", "resources"))
        if fields is None or not {"type", "actions", "resources"} <= fields.keys():
            return None
        more: dict[str, str] = {
            key: text for key in ("workflow", "environment") if key in fields and (text := fields[key].text())
        }
        if "sensitivity" in fields and (word := fields["sensitivity"].word(SENSITIVITIES)):
            more["sensitivity"] = word
        parent = None
        if "parent" in fields and depth >= MAX_PARENTS:
            fields["parent"].wrong("bad_value", f"a task has at most {MAX_PARENTS} tasks above it here")
        elif "parent" in fields:
            parent = self.task(fields["parent"], depth + 1)
        return TaskGiven(
            node.place,
            fields["type"].text() or "",
            fields["actions"].texts(least=1),
            fields["resources"].texts(least=1),
            fields["principal"].spiffe_id() if "principal" in fields else None,
            fields["client"].spiffe_id() if "client" in fields else None,
            more,
            fields["ttl"].span_us() if "ttl" in fields else None,
            (fields["age"].span_us() or 0) if "age" in fields else 0,
            fields["ended"].word(ENDINGS) if "ended" in fields else None,
            parent,
        )

    # ------------------------------------------------------------ what is expected

    def expect(self, node: Node) -> Expected | None:
        fields = node.map(EXPECT)
        if fields is None:
            return None
        if not fields:
            node.wrong("missing_key", "expected at least `outcome` or `reason`")
        outcome = fields["outcome"].word(OUTCOMES) if "outcome" in fields else None
        reason = (
            fields["reason"].word(self._words.reasons, "a reason of a decision")
            if "reason" in fields
            else None
        )
        implied = None if reason is None else "allow" if reason == "allowed" else "deny"
        if outcome and implied and outcome != implied:
            fields["outcome"].wrong("bad_value", f"the reason `{reason}` is that of a {implied}")
        return Expected(
            node.place,
            outcome or implied,
            reason,
            fields["http_status"].whole(100, 599) if "http_status" in fields else None,
            fields["enforced"].truth() if "enforced" in fields else None,
            self._names(fields.get("determining"), self._words.policies, "the id of a policy"),
            self._names(fields.get("decisive"), tuple(self._words.signals), "a signal of the register"),
            self._names(fields.get("refused"), tuple(self._words.signals), "a signal of the register"),
            self._states(fields["signals"]) if "signals" in fields else {},
        )

    def _names(self, node: Node | None, known: tuple[str, ...], what: str) -> frozenset[str] | None:
        if node is None:
            return None
        return frozenset(name for item in node.items() if (name := item.word(known, what)))

    def _states(self, node: Node) -> dict[str, str]:
        return {
            name: state
            for name, entry in node.entries()
            if self._known(name, entry) and (state := entry.word(STATES))
        }

    def without(self, node: Node) -> tuple[dict[str, str | None], dict[str, Place]]:
        """A list of names, or a map from names to the reasons that are expected."""
        found: dict[str, str | None] = {}
        places: dict[str, Place] = {}
        if isinstance(node.value, dict):
            for name, entry in node.entries():
                if self._can_be_lost(name, entry):
                    found[name] = entry.word(self._words.reasons, "a reason of a decision")
                    places[name] = entry.place
            return found, places
        for item in node.items(least=1):
            if (word := item.text()) and self._can_be_lost(word, item):
                found[word] = None
                places[word] = item.place
        return found, places

    def _can_be_lost(self, name: str, node: Node) -> bool:
        if not self._known(name, node):
            return False
        contract = self._words.signals[name]
        if all(source.get("assurance") == "self_asserted" for source in contract["sources"]):
            node.wrong(
                "bad_value",
                f"`{name}` is the caller's own word, which it may leave out: what follows then belongs into `each`",
            )
            return False
        if not any(map(origin_of, contract["sources"])):
            node.wrong(
                "bad_value", f"`{name}` comes with the request: what follows without it belongs into `each`"
            )
            return False
        return True


def _headers(node: Node) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, entry in node.entries():
        if name != name.lower():
            entry.wrong("bad_value", f"a header's name is in lower case, as Envoy sends it: `{name.lower()}`")
        elif entry.value is None:
            found[name] = None
        elif isinstance(entry.value, str):
            found[name] = entry.value
        else:
            entry.expected("text, in quotes where YAML reads something else, or `null` for none")
    return found


def _body(node: Node) -> str | None:
    """Text as it is; a map or a list as JSON."""
    if isinstance(node.value, str):
        return node.value
    if isinstance(node.value, dict | list):
        return orjson.dumps(node.value).decode()
    node.expected("text, or a map or a list, which is sent as JSON")
    return None


def _principal(node: Node) -> str | Any:
    """`null`: nobody. It need not be a good SPIFFE ID: a case may be about one that is not."""
    return ABSENT if node.value is None else node.text()


def _ids(node: Node) -> tuple[str, ...]:
    return tuple(name for item in node.items(least=1) if (name := item.spiffe_id()))


def _answer(node: Node) -> Answer | None:
    fields = node.map(("by",), needed=("by",))
    by = fields["by"].spiffe_id() if fields and "by" in fields else None
    return Answer(by, node.place) if by else None
