"""Looks for requests that the policies of one language would let through and those of another would not.

The same rules in two languages say the same; where they do not, a request is found that shows it, if there is one among
those that are tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from signalwarden.decision_log.parts import map_of
from signalwarden.errors import BadInputError
from signalwarden.policy_tests.generating import Generator
from signalwarden.policy_tests.stage import SetUpError, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from signalwarden.config import Loaded
    from signalwarden.directory import Directory
    from signalwarden.policy_tests.model import Case

__all__ = ["Disagreement", "Parity", "compare"]

MAX_SHOWN: Final = 5
"""Of disagreements: the first of a mistake shows it."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A request that two languages judge differently."""

    case: Case
    verdicts: Mapping[str, str]
    """`permits`, `open`, `denies` or `failed`, by language."""

    def as_case(self) -> str:
        """As a case of a file, to be kept once it is settled what is right."""
        case, request = self.case, self.case.request
        said = ", ".join(f"{language} {verdict}" for language, verdict in self.verdicts.items())
        lines = [f"  # {said}", f"  - name: {_json(case.name)}"]
        if request is not None:
            told: dict[str, Any] = {**request.fields}
            if isinstance(request.principal, str):
                told["principal"] = request.principal
            if request.headers:
                told["headers"] = dict(request.headers)
            if request.body is not None:
                told["body"] = request.body
            lines.append(f"    request: {_json(told)}")
        if case.signals:
            lines.append(f"    signals: {_json({one.name: one.value for one in case.signals})}")
        if case.task is not None:
            task = case.task
            told = {"type": task.type, "actions": task.actions, "resources": task.resources}
            lines.append(f"    task: {_json(told)}")
        lines.append("    expect: {outcome: deny}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"verdicts": dict(self.verdicts), "case": self.as_case()}


@dataclass(slots=True)
class Parity:
    """What came of a search."""

    seed: int
    tried: int = 0
    compared: int = 0
    """Of those: both languages were asked."""
    permitted: int = 0
    """Of those: both permit."""
    disagreed: int = 0
    shown: list[Disagreement] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "seed": self.seed,
            "tried": self.tried,
            "compared": self.compared,
            "permitted": self.permitted,
            "disagreed": self.disagreed,
            "shown": [one.as_dict() for one in self.shown],
        }


def compare(
    loaded: Loaded,
    directory: Directory,
    *,
    now_us: int,
    count: int,
    seed: int,
    told: Callable[[], None] = lambda: None,
) -> Parity:
    """Tries so many requests. Raises BadInputError for a directory of one language."""
    stage = Stage(loaded, now_us=now_us)
    policies = {policy["id"]: policy for policy in stage.described["policies"]}
    languages = sorted({policy.get("engine", "cedar") for policy in policies.values()})
    if len(languages) != 2:
        there = f"there is only {languages[0]}" if languages else "there are none"
        raise BadInputError(f"`--parity` compares the policies of two languages, and {there}")
    found = Parity(seed)
    generator = Generator(directory, stage.described, loaded.settings.trust_domain, seed)
    for case in generator.cases(count):
        found.tried += 1
        told()
        try:
            played = stage.play(case)
        except SetUpError:  # a task that no policy lets begin: its calls reach none either
            continue
        action = str(map_of(played.record.get("request")).get("action"))
        asked = [language for language in languages if _is_asked(loaded, language, action)]
        verdicts = _verdicts(played.reach or (), policies, asked)
        if len(verdicts) < len(languages):
            continue
        found.compared += 1
        permits = [verdict == "permits" for verdict in verdicts.values()]
        found.permitted += all(permits)
        if any(permits) and not all(permits):
            found.disagreed += 1
            if len(found.shown) < MAX_SHOWN:
                found.shown.append(Disagreement(case, verdicts))
    return found


def _is_asked(loaded: Loaded, language: str, action: str) -> bool:
    """Rego may be asked for some actions alone."""
    rego = loaded.settings.policies.rego
    return language == "cedar" or rego is None or rego.actions is None or action in rego.actions


def _verdicts(
    reach: Sequence[Mapping[str, Any]], policies: Mapping[str, Mapping[str, Any]], languages: Sequence[str]
) -> dict[str, str]:
    """What each language says by itself. One that has no policy in play says no, if the other was asked at all."""
    enforced = [one for one in reach if policies[one["id"]]["mode"] == "enforce"]
    if not enforced:
        return {}
    of = {one["id"]: policies[one["id"]].get("engine", "cedar") for one in enforced}
    return {
        language: _verdict([one for one in enforced if of[one["id"]] == language], policies)
        for language in languages
    }


def _verdict(reach: Sequence[Mapping[str, Any]], policies: Mapping[str, Mapping[str, Any]]) -> str:
    def some(effect: str, *truths: str) -> bool:
        return any(policies[one["id"]]["effect"] == effect and one["truths"][-1] in truths for one in reach)

    if some("permit", "failed") or some("forbid", "failed"):
        return "failed"
    if some("forbid", "certain") or not some("permit", "certain", "may"):
        return "denies"
    return "permits" if some("permit", "certain") and not some("forbid", "may") else "open"


def _json(value: object) -> str:
    """JSON is YAML."""
    return orjson.dumps(value).decode()
