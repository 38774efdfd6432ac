"""The front doors that tests run against, and how a directory is told which one serves its `check` address.

A test that touches the door says `@pytest.mark.usefixtures("front")`, a module of them
`pytestmark = pytest.mark.usefixtures("front")`: it then runs once for each of FRONTS, or for the one that
`pytest --front NAME` names, and the servers that it starts have that front.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["DEFAULT", "FRONTS", "choose", "chosen"]

FRONTS: Final = ("grpcio", "native")
DEFAULT: Final = "grpcio"
_FLOW: Final = re.compile(r'(^|[{,]) *("?)listen\2: *\{', re.MULTILINE)
_BLOCK: Final = re.compile(r"^listen:[^\n{]*$", re.MULTILINE)


class _Chosen:
    """The front of the test that runs; see `chosen`."""

    front = DEFAULT


chosen: Final = _Chosen()
"""Set by a fixture in conftest.py, and read by what starts servers for a test."""


def choose(root: Path, front: str | None = None) -> Path:
    """Writes the front into `signalwarden.yaml`, that of the test unless told; the default is written nowhere. Returns
    the directory."""
    wanted = front or chosen.front
    if wanted == DEFAULT:
        return root
    path = root / "signalwarden.yaml"
    text = path.read_text()
    if re.search(r'\bfront"?:', text):
        return root
    if found := _FLOW.search(text):
        quote = found[2]
        entry = f"{quote}front{quote}: {quote}{wanted}{quote}, "
    else:
        found = _BLOCK.search(text)
        entry = f"\n  front: {wanted}"
    assert found, f"{path} has no `listen`"
    path.write_text(text[: found.end()] + entry + text[found.end() :])
    return root
