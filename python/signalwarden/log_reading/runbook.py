"""What an operator does about a reason: one line each. `log explain` says it, and docs/operations.md lists it.

The lines stand in runbook.json. After a change
`python -m signalwarden.log_reading.runbook docs/operations.md` writes the page anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import orjson

__all__ = ["HEADING", "RUNBOOK", "rows", "written_into"]

HEADING: Final = "## What to do about a reason"

RUNBOOK: Final[dict[str, str]] = orjson.loads(Path(__file__).with_suffix(".json").read_bytes())
"""By reason, in the order of the closed list."""


def rows() -> str:
    """The table of the page."""
    lines = "".join(f"| `{reason}` | {told} |\n" for reason, told in RUNBOOK.items())
    return f"| reason | look at |\n|---|---|\n{lines}"


def written_into(page: str) -> str:
    """A page with its table as it is here."""
    before, _, after = page.partition(HEADING)
    return (
        before + HEADING + re.sub(r"\| reason \| look at \|\n(?:\|.*\n)*", lambda _: rows(), after, count=1)
    )


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written_into(file.read_text(encoding="utf-8")), encoding="utf-8")
