"""The pages of the documentation, and how tests read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(
    {
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / "envoy").glob("*.md"),
        *(ROOT / "bench").glob("*.md"),
    }
)
RECORD_SCHEMA: Final = json.loads((DOCS / "schema" / "decision-record.schema.json").read_text())
# The day of the examples: which reviews are due depends on it.
EXAMPLES_NOW_US: Final = 1_795_514_400_000_000
GRPC: Final = {
    0: "OK", 3: "INVALID_ARGUMENT", 7: "PERMISSION_DENIED", 13: "INTERNAL", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED",
}  # fmt: skip


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str, info: str) -> list[str]:
    """The fenced blocks with this info string."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands below a heading, down to the next of its level."""
    level = heading.split(" ")[0]
    return text.split(f"\n{heading}\n")[1].split(f"\n{level} ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without the rows of dashes."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("-: ")]


def table(text: str) -> dict[str, list[str]]:
    """Rows whose first cell is code, by that code."""
    return {row[0].strip("`"): row[1:] for row in rows(text) if row[0].startswith("`")}


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("permit (", "permit(").replace("forbid (", "forbid(").strip()


# ---- what is shown runs ---------------------------------------------------------------------------------


def hold(lines: Iterable[dict[str, Any]]) -> None:
    """Every line is as its JSON Schema says."""
    for line in lines:
        one_kind = {**RECORD_SCHEMA, "oneOf": [{"$ref": f"#/$defs/{line['kind']}"}]}
        errors = [
            f"{error.json_path}: {error.message}"
            for error in Draft202012Validator(one_kind).iter_errors(line)
        ]
        assert errors == [], line
