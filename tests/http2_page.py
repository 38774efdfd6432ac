"""The tables of docs/http2.md, made from what the tests hold the front doors to: limits in the sources, attacks and gRPC cases in
tests/vectors, deviations in tests/h2spec. `python -m tests.http2_page docs/http2.md` writes them anew.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests import fronts
from tests.h2_attacks import ATTACKS
from tests.pages import ROOT

PAGE: Final = "docs/http2.md"
GRPCIO: Final = ROOT / "python/signalwarden/server.py"
NATIVE: Final = ROOT / "rust_core/listener/src/limits.rs"
MARK: Final = "<!-- {name}: python -m tests.http2_page -->\n"
END: Final = "<!-- end -->"


def _vectors(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "tests/vectors" / name).read_text(encoding="utf-8"))
    return found


def _said(case: dict[str, Any]) -> str:
    cells = []
    for front in fronts.FRONTS:
        between = " or " if case.get("name") in ATTACKS else "; "
        told = [between.join(case["fronts"][front])]
        if codes := case.get("others_are_told", {}).get(front):
            told.append(f"**some honest callers are told {', '.join(codes)}**")
        if mib := case.get("more_mib", {}).get(front):
            told.append(f"meanwhile up to {mib} MiB more")
        if share := case.get("memory_after", {}).get(front):
            told.append(f"**memory afterwards up to {share:g} times**")
        cells.append(". ".join(told))
    return " | ".join(cells)


def _table(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return f"{head}\n|{'---|' * columns}\n" + "".join(f"{row}\n" for row in rows)


def limits_of_grpcio() -> str:
    """Constants of the door in Python, with their reasons."""
    body = ast.parse(GRPCIO.read_text(encoding="utf-8")).body
    rows = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            continue
        name = node.target.id
        if not re.match(r"(MAX|MIN_PING|KEEPALIVE|HANDSHAKE)_", name):
            continue
        rows.append(
            f"| `{name}` | {_product(ast.unparse(node.value))} | {' '.join(_text_of(following).split())} |"
        )
    return _table("| limit | value | why |", rows)


def _text_of(node: ast.stmt | None) -> str:
    """The docstring of a constant, which stands below it; empty: it has none."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return node.value.value
    return ""


def limits_of_native() -> str:
    """Constants of the door in Rust, with their reasons."""
    found = re.findall(
        r"((?:^/// .*\n)+)pub const (\w+): \w+ = (.+);", NATIVE.read_text(encoding="utf-8"), re.MULTILINE
    )
    rows = []
    for why, name, value in found:
        told = " ".join(line.removeprefix("/// ") for line in why.splitlines())
        rows.append(f"| `{name}` | {_product(value)} | {told} |")
    return _table("| limit | value | why |", rows)


def _product(text: str) -> str:
    """A value as a reader wants it: products worked out, durations with their unit."""
    text = re.sub(r"(?<=\d)_(?=\d)", "", text)
    if found := re.fullmatch(r"Duration::from(secs|millis)\((\d+)\)", text):
        return f"{int(found[2]):,} {'s' if found[1] == 'secs' else 'ms'}"
    if re.fullmatch(r"\d+(?: \* \d+)*", text):
        number = 1
        for factor in text.split(" * "):
            number *= int(factor)
        return f"{number:,}"
    return f"`{text}`"


def attacks() -> str:
    """What came of each attack."""
    rows = [
        f"| {case['name']} ({case['ref']}) | {case['how']} | {_said(case)} |"
        if case["ref"] not in ("-", "")
        else f"| {case['name']} | {case['how']} | {_said(case)} |"
        for case in _vectors("h2/abuse.json")["attacks"]
    ]
    return _table("| attack | how | " + " | ".join(fronts.FRONTS) + " |", rows)


def calls() -> str:
    """What each call is answered with."""
    rows = [f"| `{case['id']}` | {_said(case)} |" for case in _vectors("grpc/expectations.json")["cases"]]
    return _table("| case | " + " | ".join(fronts.FRONTS) + " |", rows)


def deviations() -> str:
    """Where h2spec finds fault, and why."""
    groups = json.loads((ROOT / "tests/h2spec/deviations.json").read_text(encoding="utf-8"))
    rows = [
        f"| {front} | {', '.join(f'`{case}`' for case in group['cases'])} | {group['why']} |"
        for front in fronts.FRONTS
        for group in groups[front]
    ]
    return _table("| front | cases of h2spec | why |", rows)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "limits of grpcio": limits_of_grpcio,
    "limits of native": limits_of_native,
    "attacks": attacks,
    "calls": calls,
    "deviations": deviations,
}


def written_into(page: str) -> str:
    """The page with its tables as they are now."""
    for name, made in TABLES.items():
        mark = MARK.format(name=name)
        before, found, after = page.partition(mark)
        assert found, f"the page has no place for `{name}`"
        page = before + mark + made() + END + after.partition(END)[2]
    return page


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written_into(file.read_text(encoding="utf-8")), encoding="utf-8")
