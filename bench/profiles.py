"""How many users locust has at which moment: the profiles, as arithmetic."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["CHURNING", "PROFILES", "RELOADING", "users_at"]

PROFILES: Final = {
    "steady": "all users from the first second to the last",
    "ramp": "from one user to all, evenly, and down again in the last fifth",
    "spike": "a fifth of the users, and all of them for a tenth of the time, twice",
    "soak": "half of the users for as long as is asked, while signals change and the directory is reloaded",
    "churn": "all users, while signals change",
    "reloads": "all users, while the directory is reloaded every second",
}
CHURNING: Final = frozenset({"soak", "churn"})
"""Profiles in which signals are published meanwhile."""
RELOADING: Final = frozenset({"soak", "reloads"})
"""Profiles in which the directory is reloaded meanwhile."""

_CALM: Final = 0.2
_RAMP_DOWN_FROM: Final = 0.8
_SPIKES: Final = ((0.3, 0.4), (0.6, 0.7))


def users_at(profile: str, elapsed: float, users: int, seconds: float) -> int | None:
    """How many users there are `elapsed` seconds after the start of a run of `seconds`; None once it is over."""
    if elapsed >= seconds:
        return None
    share = elapsed / seconds
    if profile == "ramp":
        up = share / _RAMP_DOWN_FROM
        down = (1 - share) / (1 - _RAMP_DOWN_FROM)
        return max(1, math.ceil(users * min(up, down)))
    if profile == "spike":
        high = any(begin <= share < end for begin, end in _SPIKES)
        return users if high else max(1, round(users * _CALM))
    if profile == "soak":
        return max(1, users // 2)
    return users
