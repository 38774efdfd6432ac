"""cedar-go in an ext_authz server of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from bench.peers import translate
from bench.peers.golang import GoPeer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.peers.translate import Source

__all__ = ["PEER"]


def files(directory: Source) -> Mapping[str, str]:
    """The policies, and the table of everything else."""
    return {
        "policies.cedar": translate.cedar(directory),
        "table.json": json.dumps(translate.table(directory)),
    }


PEER: Final = GoPeer("cedar-go", (False, True), "cedar", files)
