"""Makes a directory that works, from a template: `signalwarden init`, the demo and the tests start from it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from signalwarden.directory import DESCRIPTORS, MAX_FILE_BYTES
from signalwarden.errors import BadInputError
from signalwarden.files import read_regular, why

__all__ = [
    "AGENT",
    "OPERATOR",
    "PUBLISHER",
    "TOKEN_LIFE",
    "Made",
    "Starter",
    "Template",
    "create",
    "create_from",
    "create_opa",
    "new_token",
]

Template = Literal["starter", "agent-tools", "opa-envoy"]

AGENT = "spiffe://prod.example/ns/agents/sa/refund-agent"
PUBLISHER = "spiffe://prod.example/ns/signals/sa/publisher"
OPERATOR = "spiffe://prod.example/ns/ops/sa/operator"

# A month: long enough to try things, short enough that a forgotten token dies by itself.
TOKEN_LIFE = timedelta(days=30)
# A contract is looked at again twice a year.
REVIEW_AFTER = timedelta(days=180)
# 256 bits of randomness, as a session token of any strength asks for.
TOKEN_BYTES = 32
# Where a template wants the digest of a client's token.
_TOKEN = re.compile(r"\$\{(\w+)_token_sha256\}")
_RESULT = re.compile(r"""^result(\["allowed"\]|\.allowed)\s*:?=""", re.MULTILINE)
_PACKAGE = re.compile(r"^package\s+([A-Za-z_][A-Za-z0-9_.]*)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Made:
    """A directory from a template. The tokens exist here alone: the directory holds their SHA-256."""

    directory: Path
    tokens: Mapping[str, str] = field(repr=False)
    """By the short name that the template has for a client."""
    expires: datetime


@dataclass(frozen=True, slots=True)
class Starter:
    """What `create` made. The tokens exist here alone: the directory holds their SHA-256."""

    directory: Path
    publisher_token: str
    operator_token: str
    expires: datetime


def new_token() -> tuple[str, str]:
    """A random token, and the digest that `clients:` keeps of it."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, hashlib.sha256(token.encode()).hexdigest()


def create(
    directory: Path, *, now: datetime, device_trust_max_age: str = "5m", posture_max_age: str = "5m"
) -> Starter:
    """Writes the starter directory. Refuses a directory that holds anything, so nothing is overwritten."""
    more = {"device_trust_max_age": device_trust_max_age, "posture_max_age": posture_max_age}
    made = create_from("starter", directory, now=now, values=more)
    return Starter(directory, made.tokens["publisher"], made.tokens["operator"], made.expires)


def create_opa(directory: Path, sources: Sequence[Path], *, now: datetime) -> Made:
    """Writes a directory around policies that were written for OPA's Envoy plugin: files, or folders of them. Without
    any, around an example. Raises BadInputError."""
    found: dict[str, bytes] = {}
    for source in sources:
        for name, path in _rego_files(source):
            if name in found:
                raise BadInputError(f"two files would be `{name}`: give a folder that holds both")
            found[name] = _content(path)
    if sources and not any(name.endswith(".rego") for name in found):
        raise BadInputError("none of the paths holds a `.rego` file")
    made = create_from(
        "opa-envoy",
        directory,
        now=now,
        values={"query": _query(found), "descriptors": _descriptors(found)},
        but=frozenset({"policies/policy.rego"}) if sources else frozenset(),
    )
    for name, content in found.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return made


def _rego_files(source: Path) -> Iterator[tuple[str, Path]]:
    """Policies and their data, with the names that they get. Tests of policies stay where they are."""
    if not source.is_dir():
        yield (f"policies/{source.name}" if source.suffix == ".rego" else source.name), source
        return
    for path in sorted(source.rglob("*.rego")):
        if not path.name.endswith("_test.rego"):
            yield f"policies/{path.relative_to(source).as_posix()}", path
    for path in (source / "data.json", *sorted(source.glob("*.pb"))):
        if path.is_file():
            yield path.name, path


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise BadInputError(f"`{path}` can't be read: {why(error)}") from None


def _query(found: Mapping[str, bytes]) -> str:
    """The rule `allow` of the package that the plugin asks, or of the only one that there is; or the rule `result`,
    where that is what makes the answer."""
    texts = [content.decode("utf-8", "replace") for name, content in found.items() if name.endswith(".rego")]
    packages = {match[1] for text in texts for match in _PACKAGE.finditer(text)}
    rule = "result" if any(_RESULT.search(text) for text in texts) else "allow"
    known = [name for name in ("envoy.authz", "istio.authz") if name in packages]
    package = known[0] if known else packages.pop() if len(packages) == 1 else "envoy.authz"
    return f"data.{package}.{rule}"


def _descriptors(found: Mapping[str, bytes]) -> str:
    """The line that names the descriptor set, where there is one. Of several, which is meant is not ours to say."""
    sets = [name for name in found if name.endswith(DESCRIPTORS)]
    return f"\n    descriptors: {json.dumps(sets[0])}" if len(sets) == 1 else ""


def create_from(
    template: Template,
    directory: Path,
    *,
    now: datetime,
    values: Mapping[str, str] | None = None,
    but: frozenset[str] = frozenset(),
) -> Made:
    """Writes a directory from a template, but for some of its files. Refuses a directory that holds anything, so
    nothing is overwritten."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BadInputError(f"`{directory}` is not an empty directory: init would mix its files with yours")
    expires = (now + TOKEN_LIFE).astimezone(UTC).replace(microsecond=0)
    filled = {
        "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device_trust_max_age": "5m",
        "posture_max_age": "5m",
        "review_by": (now + REVIEW_AFTER).date().isoformat(),
        **(values or {}),
    }
    tokens: dict[str, str] = {}
    for name, text in _files(resources.files("signalwarden") / "templates" / template):
        for client in _TOKEN.findall(text):
            if client not in tokens:
                tokens[client], filled[f"{client}_token_sha256"] = new_token()
        if name in but:
            continue
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_filled(text, filled), encoding="utf-8")
    return Made(directory, tokens, expires)


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _files(entry, f"{below}{entry.name}/")
        else:
            yield f"{below}{entry.name}", entry.read_text(encoding="utf-8")


def _filled(text: str, values: Mapping[str, str]) -> str:
    # Not string.Template: the files quote shell lines, where a `$` is the shell's.
    for name, value in values.items():
        text = text.replace("${" + name + "}", value)
    return text
