"""`check --parity`: whether the policies of two languages say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalwarden.decision_log import now_us
from signalwarden.decision_log.tail import clean
from signalwarden.saying import count
from signalwarden.terminal import console, counting_bar, print_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_parity"]


def check_parity(path: Path, *, cases: int, seed: int, as_json: bool) -> bool:
    """Searches, and says what was found; True if the languages agree on all that was tried."""
    from signalwarden import config
    from signalwarden.policy_tests.parity import compare

    now = now_us()
    directory = config.Directory.read(path)
    loaded = config.judge(directory, now)
    with counting_bar(cases, what="comparing") as step:
        found = compare(loaded, directory, now_us=now, count=cases, seed=seed, told=step)
    if as_json:
        print_json(found.as_dict())
        return found.disagreed == 0
    out = console()
    if found.shown:
        out.print("cases:")
    for one in found.shown:
        out.print("\n".join(clean(line) for line in one.as_case().splitlines()))
    out.print(
        f"{count(found.tried, 'request')} tried with seed {found.seed}: both languages were asked about "
        f"{found.compared} and permit {found.permitted}, they disagree about {found.disagreed}"
    )
    return found.disagreed == 0
