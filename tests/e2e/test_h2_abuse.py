"""HTTP/2 under attack, at each front door of a real server: whatever one client does, honest callers are answered right, and
memory comes back. The attacks are those of tests/vectors/h2/abuse.json, which also says what each front does about
them; docs/http2.md shows that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests import asking, fronts, log_stage
from tests.conftest import Eventually
from tests.h2_attacks import ATTACKS
from tests.log_stage import Server
from tests.probing import Answered, forget_peak, memory_kb, probing

WARM_UP_S: Final = 0.5
"""An attack of the same kind before memory is read for the first time: an allocator keeps what it once had."""
REST_S: Final = 0.2
ATTACK_S: Final = 0.5
SETTLE_S: Final = 5.0
SHARE_MORE: Final = {"grpcio": 1.25, "native": 1.10}
"""Of memory, when all is over. With grpcio the C library's allocator keeps more of what many threads once had."""
MORE_MIB: Final = 64
"""What one attacker may make the server hold for a moment, on a few connections: an order of magnitude below what would
hurt a small machine."""

VECTORS: Final[dict[str, Any]] = asking.vectors("h2/abuse.json")[0]
CASES: Final[dict[str, dict[str, Any]]] = {case["name"]: case for case in VECTORS["attacks"]}


@pytest.fixture(scope="module")
def server(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp(f"abuse-{front}") / "conf"
    log_stage.directory(root, log="ring_bytes: 4194304")
    with log_stage.serving(fronts.choose(root, front)) as running:
        yield running


def expect_right(told: Answered, but: frozenset[str] = frozenset()) -> None:
    """All right; where the vector file says so, some were told something else, though never a wrong answer."""
    print(
        f"{told.right} right, p50 {told.percentile_s(0.5) * 1e3:.1f} ms, p99 {told.percentile_s(0.99) * 1e3:.1f} ms"
    )
    assert {what.partition(":")[0] for what in told.wrong} <= but, told.wrong
    assert told.right > told.wrong.total()


def expect_outcome(name: str, front: str, outcome: str) -> None:
    """What came of an attack is what the vector file says of this front."""
    print(f"{front}: {name}: {outcome}")
    allowed = set(CASES[name]["fronts"][front])
    if any(words.startswith("goaway") for words in allowed):
        allowed.add("closed")  # where TCP's reset overtakes the farewell
    assert set(outcome.split(" or ")) <= allowed, outcome


@pytest.mark.parametrize("name", ATTACKS)
def test_honest_callers_are_answered_right_and_memory_comes_back(
    name: str, server: Server, front: str, eventually: Eventually
) -> None:
    attack, pid = ATTACKS[name], server.process.pid
    with probing(server.check) as told:
        attack(server.check, WARM_UP_S)
        time.sleep(REST_S)
        before_kb = memory_kb(pid)
        forget_peak(pid)
        outcome = attack(server.check, ATTACK_S)
        peak_kb = memory_kb(pid, "VmHWM")
    print(f"{front}: {name}: memory {before_kb} kB, at most {peak_kb - before_kb} kB more")
    case = CASES[name]
    expect_right(told, frozenset(case.get("others_are_told", {}).get(front, ())))
    assert server.process.poll() is None
    share = case.get("memory_after", {}).get(front, SHARE_MORE[front])
    eventually(lambda: memory_kb(pid) <= before_kb * share, SETTLE_S)
    assert peak_kb - before_kb < case.get("more_mib", {}).get(front, MORE_MIB) * 1024
    expect_outcome(name, front, outcome)
