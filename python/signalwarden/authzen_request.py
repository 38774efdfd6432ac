"""What other enforcement points ask (OpenID AuthZEN, Authorization API 1.0), and where: read strictly in form, and only
what may count is taken along. What else is sent is ignored, as the specification says (section 10.1.1), and as I1 does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import orjson

from signalwarden.errors import BadInputError

__all__ = [
    "CONFIGURATION",
    "EVALUATION",
    "EVALUATIONS",
    "MAX_BODY_BYTES",
    "MAX_EVALUATIONS",
    "PATHS",
    "SEARCHES",
    "Batch",
    "Faulty",
    "Question",
    "Semantic",
    "evaluation",
    "evaluations",
]

PATHS: Final = "/access/v1/"
"""Where its calls are, but for the metadata."""
EVALUATION: Final = f"{PATHS}evaluation"
EVALUATIONS: Final = f"{PATHS}evaluations"
SEARCHES: Final = tuple(f"{PATHS}search/{what}" for what in ("subject", "resource", "action"))
CONFIGURATION: Final = "/.well-known/authzen-configuration"

MAX_BODY_BYTES: Final = 256 * 1024
"""A question has some hundred bytes; a page of a hundred of them with their properties stays below this."""
MAX_EVALUATIONS: Final = 100
"""Of one call: each is a decision with a record of its own, and a page of a list has fewer lines."""
MAX_DEPTH: Final = 32
"""Of objects and lists within each other; what people write has five."""
MAX_TEXT: Final = 2_048
"""Letters of a type, a name or an id: a SPIFFE ID is the longest."""

Semantic = str
EXECUTE_ALL: Final = "execute_all"
DENY_ON_FIRST_DENY: Final = "deny_on_first_deny"
PERMIT_ON_FIRST_PERMIT: Final = "permit_on_first_permit"
SEMANTICS: Final = (EXECUTE_ALL, DENY_ON_FIRST_DENY, PERMIT_ON_FIRST_PERMIT)

PARTS: Final = ("subject", "action", "resource")
NAMES: Final = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id")}
"""What each part must say."""


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a workload may do something."""

    subject: dict[str, str]
    action: dict[str, Any]
    resource: dict[str, str]

    def for_core(self, path: str, request_id: str | None) -> bytes:
        """As the core reads it. `path`: the call that it came by; `request_id`: the caller's own id of the call."""
        return orjson.dumps(
            {
                "subject": self.subject,
                "action": self.action,
                "resource": self.resource,
                "path": path,
                "request_id": request_id,
            }
        )


@dataclass(frozen=True, slots=True)
class Faulty:
    """One of several questions that can't be read; one sentence."""

    why: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Several questions, and when to stop."""

    questions: tuple[Question | Faulty, ...]
    semantic: Semantic

    def ends_with(self, *, allowed: bool) -> bool:
        """Whether nothing is asked after such an answer."""
        return (self.semantic == DENY_ON_FIRST_DENY and not allowed) or (
            self.semantic == PERMIT_ON_FIRST_PERMIT and allowed
        )


def evaluation(body: bytes) -> Question:
    """The body of an Access Evaluation request. Raises BadInputError, which never repeats what was sent."""
    return _question(_object(body))


def evaluations(body: bytes) -> Question | Batch:
    """The body of an Access Evaluations request; one question where it holds no list (section 7.1 of the
    specification). Raises BadInputError."""
    content = _object(body)
    several = content.get("evaluations", [])
    if not isinstance(several, list):
        raise BadInputError("`evaluations`: expected a list")
    if not several:
        # Of one question `options` is no member: it is ignored, as at the other address.
        return _question(content)
    semantic = _semantic(content)
    if len(several) > MAX_EVALUATIONS:
        raise BadInputError(f"`evaluations`: expected at most {MAX_EVALUATIONS}")
    for part in (*PARTS, "context"):
        if part in content and not isinstance(content[part], dict):
            raise BadInputError(f"`{part}`: expected an object")
    defaults: dict[str, Any] = {part: content[part] for part in (*PARTS, "context") if part in content}
    return Batch(tuple(_one_of_several(defaults, one, at) for at, one in enumerate(several)), semantic)


def _one_of_several(defaults: dict[str, Any], one: object, at: int) -> Question | Faulty:
    """A mistake in one of them is an answer to that one: the others are asked all the same (section 7.2.1)."""
    where = f"evaluations[{at}]"
    if not isinstance(one, dict):
        return Faulty(f"`{where}`: expected an object")
    try:
        # A part that is there replaces that of all, whole (section 7.1.1).
        return _question({**defaults, **one})
    except BadInputError as error:
        return Faulty(f"{where}: {error}")


def _semantic(content: dict[str, Any]) -> Semantic:
    """Section 7.1.2.1; other options are ignored."""
    options = content.get("options", {})
    if not isinstance(options, dict):
        raise BadInputError("`options`: expected an object")
    semantic = options.get("evaluations_semantic", EXECUTE_ALL)
    if semantic not in SEMANTICS:
        words = ", ".join(f"`{word}`" for word in SEMANTICS)
        raise BadInputError(f"`options.evaluations_semantic`: expected one of {words}")
    return str(semantic)


def _question(content: dict[str, Any]) -> Question:
    subject, action, resource = (_part(content, part) for part in PARTS)
    if not isinstance(content.get("context", {}), dict):
        raise BadInputError("`context`: expected an object")
    return Question(
        {"type": subject["type"], "id": subject["id"]},
        # Its properties are what is asked for: arguments, of which the core looks at those that routes name. Properties
        # of subject and resource, and the context, are claims: they go no further (I1).
        {"name": action["name"], "properties": action.get("properties", {})},
        {"type": resource["type"], "id": resource["id"]},
    )


def _part(content: dict[str, Any], part: str) -> dict[str, Any]:
    if part not in content:
        raise BadInputError(f"`{part}` is missing")
    found = content[part]
    if not isinstance(found, dict):
        raise BadInputError(f"`{part}`: expected an object")
    for name in NAMES[part]:
        if name not in found:
            raise BadInputError(f"`{part}.{name}` is missing")
        text = found[name]
        if not isinstance(text, str) or not text or len(text) > MAX_TEXT:
            raise BadInputError(f"`{part}.{name}`: expected a text of 1 to {MAX_TEXT} letters")
    if not isinstance(found.get("properties", {}), dict):
        raise BadInputError(f"`{part}.properties`: expected an object")
    return found


# ---- JSON -----------------------------------------------------------------------------------------------


def _object(body: bytes) -> dict[str, Any]:
    """One JSON object, as section 11.5 and I-JSON (RFC 7493) have it: UTF-8, no name twice; and no deeper than anyone
    writes (section 11.7)."""
    if not body.strip():
        raise BadInputError("the body is empty, expected a JSON object")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadInputError("the body is not JSON") from error
    if not isinstance(content, dict):
        raise BadInputError("expected a JSON object")
    if _is_deeper(content, MAX_DEPTH):
        raise BadInputError(f"expected objects and lists at most {MAX_DEPTH} deep")
    # Which of two members counts, readers do not agree on: the one before us may have taken the other.
    json.loads(body, object_pairs_hook=_named_once, parse_int=str, parse_float=str)
    return content


def _is_deeper(content: object, most: int) -> bool:
    level: list[Any] = [content]
    for _ in range(most):
        inner: list[Any] = []
        for node in level:
            inner.extend(node.values() if isinstance(node, dict) else node)
        level = [node for node in inner if isinstance(node, dict | list)]
        if not level:
            return False
    return True


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise BadInputError("a name stands twice in one object")
    return names
