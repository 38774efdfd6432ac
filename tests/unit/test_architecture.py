"""The rules of the house, read from its sources: who may name whom, and what stays out of the core.

Each rule is a function from sources to what breaks it, and is also held against sources that break it: a rule that
can't fail holds nothing.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

from tests.layers import IMPORTS, LAYERS
from tests.rooms import ROOMS

ROOT = Path(__file__).parents[2]
CORE = "rust_core/core/src"
MAX_LINES = 600

Sources = Mapping[str, str]
"""Texts by path, relative to the root of the repository."""
Edges = dict[str, set[str]]

# ---- the house, as data -----------------------------------------------------------------------------------

# Which room of the core names which: `tests/rooms.py`.

# A crate, and the only place that may name it.
CRATES = {
    r"prost\w*": f"{CORE}/wire/",
    r"cedar_policy\w*": f"{CORE}/policy/cedar/",
    r"regorus": f"{CORE}/policy/rego/",
    r"pyo3\w*": "rust_core/pyext/",
    "rustix": "rust_core/mapped/",
    "signalwarden_mapped": "rust_core/pyext/src/ring.rs",
}

# What the core must not reach: clocks, files, environment, network, processes, threads, randomness.
# Addresses are values, and a `Write` into memory is no file.
OUTSIDE = (
    r"std::time::(?:SystemTime|Instant|UNIX_EPOCH)",
    r"std::(?:fs|env|process|thread)\b",
    r"std::net::(?!(?:IpAddr|Ipv4Addr|Ipv6Addr)\b)",
    r"std::io::(?:stdin|stdout|stderr|Stdin|Stdout|Stderr)\b",
    r"std::collections::hash_map::RandomState",
    r"(?:chrono::)?(?:Utc|Local)::now",
    r"(?:rand|getrandom|tokio|hyper|socket2|libc|fastrand)::",
)
OUTSIDE_CRATES = {"rand", "getrandom", "fastrand", "tokio", "hyper", "socket2", "libc", "pyo3", "time"}

# On the path of a request nothing parses Envoy's messages: it costs six times the processor time.
HOT = (
    *("server.py", "health.py", "app.py", "admin.py", "doors.py", "services.py", "intake.py", "rates.py"),
    *("publish_door.py", "mtls.py", "reloads.py", "watch.py", "decision_log/", "signals/", "answering.py"),
    *("identity.py", "clients.py", "door_tls.py", "tokens/", "bundles/", "approvals.py", "overrides.py"),
    *("front.py", "fronts.py", "native.py"),
    *("admin_answers.py", "admin_approvals.py", "admin_decisions.py", "decisions.py", "refusals.py"),
)
PARSERS = {"envoy_data_plane", "betterproto2"}

# ---- reading Rust -----------------------------------------------------------------------------------------

_NOISE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'""",
    re.DOTALL,
)
_TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\n]*\]\s*)*mod \w+ \{.*", re.DOTALL)
_PATH = re.compile(r"(?<![\w:])(?:[A-Za-z_]\w*)(?:::[A-Za-z_]\w*)*(?:::(?=\{))?")


def code(text: str) -> str:
    """Rust without comments and literals, and without the tests at the end of the file."""
    bare = _NOISE.sub(lambda noise: '""' if noise.group()[-1:] in "\"'" else " ", text)
    return _TESTS.sub("", bare)


def named_paths(text: str) -> Iterator[str]:
    """Every path that code names, `use a::{b, c::d}` written out. Local names are paths of one part."""
    at = 0
    while found := _PATH.search(text, at):
        at = found.end()
        path = found.group()
        if path.endswith("::"):
            end = _closing(text, at)
            for inner in _branches(text[at + 1 : end]):
                yield from (path + below for below in named_paths(inner))
            at = end + 1
        else:
            yield path


def _closing(text: str, opening: int) -> int:
    depth = 0
    for at in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return len(text)


def _branches(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def room_edges(sources: Sources) -> Edges:
    """Which room names which, by `crate::` and by `super::` that leaves the room."""
    edges: Edges = {}
    for path, text in sources.items():
        inside = PurePosixPath(path).relative_to(CORE)
        if inside.name == "lib.rs":
            continue
        room = inside.parts[0].removesuffix(".rs")
        depth = len(inside.parts) - (1 if inside.name == "mod.rs" else 0)
        known = edges.setdefault(room, set())
        for named in named_paths(code(text)):
            parts = named.split("::")
            ups = next((n for n, part in enumerate(parts) if part != "super"), len(parts))
            if parts[0] == "crate" and len(parts) > 1:
                known.add(parts[1])
            elif ups >= depth and ups < len(parts):
                known.add(parts[ups])
    return {room: named - {room} for room, named in edges.items()}


def strangers(sources: Sources, crate: str, place: str) -> list[str]:
    """Files that name a crate which another place keeps to itself."""
    name = re.compile(rf"\b{crate}\b")
    return [path for path, text in sources.items() if not path.startswith(place) and name.search(code(text))]


def reaches_out(sources: Sources) -> list[str]:
    """What the core names of the world outside: file and path."""
    worlds = [re.compile(pattern) for pattern in OUTSIDE]
    return [
        f"{path}: {named}"
        for path, text in sources.items()
        for named in named_paths(code(text))
        if any(world.match(named) for world in worlds)
    ]


def test_a_use_tree_is_written_out() -> None:
    text = 'use std::{fmt, time::{Duration, Instant}}; // use std::fs;\nlet x = "std::env"; crate::a::b();'
    named = set(named_paths(code(text)))
    assert {"std::fmt", "std::time::Duration", "std::time::Instant", "crate::a::b"} <= named
    assert not {"std::fs", "std::env"} & named


# ---- reading Python ---------------------------------------------------------------------------------------


def imported(text: str) -> set[str]:
    """Everything that a module imports, anywhere in it, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def python_edges(sources: Sources) -> Edges:
    """Which module of the package imports which; those of a subpackage are one."""
    modules = {_module(path) for path in sources} | {"_core"}
    edges: Edges = {}
    for path, text in sources.items():
        module = _module(path)
        ours = {name.split(".")[1] for name in imported(text) if name.startswith("signalwarden.")}
        edges.setdefault(module, set()).update(ours & modules - {module})
    return edges


def _module(path: str) -> str:
    return PurePosixPath(path).relative_to("python/signalwarden").parts[0].removesuffix(".py")


def climbs(edges: Edges) -> list[str]:
    """Imports that do not go to a lower layer, and modules that have none."""
    layer = {module: at for at, layer in enumerate(LAYERS) for module in layer}
    return [
        f"{module} -> {other}"
        for module, others in sorted(edges.items())
        for other in sorted(others)
        if layer.get(other, 99) >= layer.get(module, -1)
    ]


def hot_parsers(sources: Sources) -> list[str]:
    """Modules on the path of a request that import Envoy's Python messages."""
    return [
        path
        for path, text in sources.items()
        if path.removeprefix("python/signalwarden/").startswith(HOT)
        and any(name.split(".")[0] in PARSERS for name in imported(text))
    ]


# ---- reading files ----------------------------------------------------------------------------------------


def untitled(sources: Sources) -> list[str]:
    """Files that do not open with a sentence on what belongs there."""
    return [path for path, text in sources.items() if not re.match(r"\S.{8,}[.:;,)`\w]$", _title(path, text))]


def _title(path: str, text: str) -> str:
    if path.endswith(".rs"):
        first = text.split("\n", 1)[0]
        return first.removeprefix("//! ") if first.startswith("//! ") else ""
    return (ast.get_docstring(ast.parse(text)) or "").split("\n", 1)[0]


def too_long(sources: Sources) -> list[str]:
    """Files that nobody reads to their end."""
    return [path for path, text in sources.items() if len(text.splitlines()) > MAX_LINES]


def read(paths: Iterable[Path]) -> dict[str, str]:
    """Texts by path."""
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(paths)}


def kept(*patterns: str) -> dict[str, str]:
    """Files of the repository, new ones included, but nothing that is built or installed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    try:
        listed = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        paths = [ROOT / line for line in listed.splitlines()]
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked archive
        built = {"target", ".venv", "dist"}
        paths = [
            p for pattern in patterns for p in ROOT.rglob(pattern) if not built & {*p.relative_to(ROOT).parts}
        ]
    return read(path for path in paths if path.is_file())


@pytest.fixture(scope="module")
def core() -> dict[str, str]:
    """Without its tests, which may use whatever they want."""
    return read(path for path in (ROOT / CORE).rglob("*.rs") if "tests" not in (path.stem, path.parent.name))


@pytest.fixture(scope="module")
def rust() -> dict[str, str]:
    return kept("*.rs")


@pytest.fixture(scope="module")
def package() -> dict[str, str]:
    return read(p for p in (ROOT / "python/signalwarden").rglob("*.py") if "templates" not in p.parts)


@pytest.fixture(scope="module")
def python() -> dict[str, str]:
    return kept("*.py", "*.pyi")


# ---- the core ---------------------------------------------------------------------------------------------


def test_each_room_of_the_core_names_the_rooms_that_it_may_and_no_other(core: dict[str, str]) -> None:
    assert room_edges(core) == ROOMS
    assert room_edges(core | {f"{CORE}/limits.rs": "use crate::{model::Request, reason};"}) != ROOMS
    assert (
        room_edges(core | {f"{CORE}/policy/cedar/walk.rs": "use super::super::super::wire::decode;"}) != ROOMS
    )
    assert (
        room_edges(core | {f"{CORE}/identity/peer.rs": "fn f() { super::super::policy::allow(); }"}) != ROOMS
    )


def test_rooms_depend_one_way() -> None:
    above: set[str] = set()
    for room, named in ROOMS.items():
        assert named <= above, f"{room} names {named - above}, which do not stand above it"
        above.add(room)


def test_identity_and_policy_do_not_know_each_other() -> None:
    """INVARIANT I7."""
    assert "policy" not in ROOMS["identity"]
    assert "identity" not in ROOMS["policy"]


def test_only_check_uses_the_wire_and_snapshot_for_descriptors(core: dict[str, str]) -> None:
    users = {room for room, named in room_edges(core).items() if "wire" in named}
    assert users == {"check", "snapshot"}
    of_snapshot = [line for line in core[f"{CORE}/snapshot.rs"].splitlines() if "wire::" in line]
    assert [line.strip() for line in of_snapshot] == ["wire::Descriptors,"]
    planted = room_edges({f"{CORE}/record/mod.rs": "pub use crate::wire::rules;"})
    assert planted == {"record": {"wire"}}


@pytest.mark.parametrize(("crate", "place"), CRATES.items())
def test_a_crate_is_named_in_its_own_place_only(rust: dict[str, str], crate: str, place: str) -> None:
    shipped = {
        path: text
        for path, text in rust.items()
        if path.startswith(("rust_core/core/src", "rust_core/pyext", "rust_core/mapped"))
    }
    assert strangers(shipped, crate, place) == []
    name = crate.removesuffix(r"\w*")
    planted = {f"{CORE}/decide.rs": f"use {name}::Thing;", f"{CORE}/route/mod.rs": f"// {name}\n"}
    assert strangers(planted, crate, place) == [f"{CORE}/decide.rs"]


def test_the_core_reaches_nothing_outside(core: dict[str, str]) -> None:
    assert reaches_out(core) == []


@pytest.mark.parametrize(
    "planted",
    [
        "use std::time::SystemTime;",
        "use std::{fmt, time::{Duration, Instant}};",
        "fn f() { std::fs::read(p); }",
        "fn f() -> Option<String> { std::env::var(NAME).ok() }",
        "use std::net::{IpAddr, TcpStream};",
        "use rand::Rng;",
        "use std::thread::{self};",
        "let now = chrono::Utc::now();",
        "use std::collections::hash_map::RandomState;",
    ],
)
def test_what_reaches_outside_is_found(planted: str) -> None:
    assert len(reaches_out({f"{CORE}/decide.rs": planted})) == 1


def test_memory_is_unsafe_in_one_place_only(rust: dict[str, str]) -> None:
    assert strangers(rust, "unsafe", "rust_core/mapped/src/lib.rs") == []
    planted = {
        f"{CORE}/decide.rs": "fn f() { unsafe { g() } } // unsafe",
        "rust_core/mapped/src/lib.rs": "unsafe",
    }
    assert strangers(planted, "unsafe", "rust_core/mapped/src/lib.rs") == [f"{CORE}/decide.rs"]
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    assert workspace["lints"]["rust"]["unsafe_code"] == "forbid"
    own = {
        member
        for member in workspace["members"]
        if tomllib.loads((ROOT / member / "Cargo.toml").read_text())["lints"] != {"workspace": True}
    }
    assert own == {"rust_core/mapped"}


def test_durations_and_addresses_are_values() -> None:
    text = "use std::{net::{IpAddr, Ipv6Addr}, time::Duration}; // std::fs"
    assert reaches_out({f"{CORE}/decide.rs": text}) == []


def test_the_core_is_built_without_the_crates_that_reach_outside() -> None:
    manifest = tomllib.loads((ROOT / "rust_core/core/Cargo.toml").read_text())
    assert not OUTSIDE_CRATES & set(manifest["dependencies"])
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["dependencies"]
    clock = workspace["chrono"]
    assert clock["default-features"] is False
    assert "clock" not in clock.get("features", [])


# ---- the package ------------------------------------------------------------------------------------------


def test_modules_import_from_lower_layers_only(package: dict[str, str]) -> None:
    edges = python_edges(package)
    assert set(edges) - set().union(*LAYERS) <= {"__init__"}
    assert climbs(edges) == []
    planted = {"python/signalwarden/state.py": "def f():\n    from signalwarden.app import App\n"}
    assert climbs(python_edges(package | planted)) == ["state -> app"]
    planted = {"python/signalwarden/server.py": "from signalwarden import admin\n"}
    assert climbs(python_edges(package | planted)) == ["server -> admin"]


def test_what_serves_requests_imports_exactly_what_it_may(package: dict[str, str]) -> None:
    edges = python_edges(package)
    assert {module: edges[module] for module in IMPORTS} == IMPORTS


def test_app_is_the_only_module_that_wires(package: dict[str, str]) -> None:
    wired = {"state", "fronts", "admin", "decision_log"}
    wiring = {module for module, named in python_edges(package).items() if wired <= named}
    assert wiring == {"app"}


def test_no_message_of_envoys_is_parsed_on_the_path_of_a_request(package: dict[str, str]) -> None:
    assert hot_parsers(package) == []
    planted = {
        "python/signalwarden/server.py": "def f():\n    import betterproto2\n",
        "python/signalwarden/signals/push.py": "from envoy_data_plane.envoy.service.auth.v3 import CheckRequest\n",
        "python/signalwarden/demo.py": "import betterproto2\n",
    }
    assert hot_parsers(planted) == ["python/signalwarden/server.py", "python/signalwarden/signals/push.py"]


# ---- every file -------------------------------------------------------------------------------------------


def test_every_file_opens_with_what_belongs_there(rust: dict[str, str], python: dict[str, str]) -> None:
    assert len(rust) > 50
    assert len(python) > 30
    assert untitled(rust) == []
    assert untitled(python) == []
    planted = {"a.rs": "use std::fmt;\n", "b.py": "import os\n", "c.rs": "//! \n", "d.py": '"""X."""\n'}
    assert untitled(planted) == [*planted]


def test_no_file_is_too_long_to_be_read(rust: dict[str, str], python: dict[str, str]) -> None:
    assert too_long(rust) == []
    assert too_long(python) == []
    assert too_long({"a.py": "x\n" * MAX_LINES, "b.py": "x\n" * (MAX_LINES + 1)}) == ["b.py"]
