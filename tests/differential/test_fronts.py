"""Both front doors say the same: two servers, each with the other front on a copy of one directory, are asked the same, one
call after the other, and answer the same bytes and write the same records.

What is made equal before they are compared, and nothing else:
- in answers: ids (version 7 UUIDs) become one id, and moments of the form RFC 3339 (`expires_at` of a question) one moment;
- in records: the same, and the figures `timing_us` and `age_ms` become 0. Moments lie inside of values, too, so that a value is
  compared only as far as it is none; the vectors have no such values.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalwarden.app import App
from signalwarden.server import CHECK_METHOD
from tests import asking, fronts
from tests.callers import clients, who
from tests.conftest import Eventually
from tests.differential import test_decode
from tests.property.test_front_door import hostile
from tests.serving import running
from tests.unit.test_vectors_reasons import BY_CHECK_ALONE, CASES, VECTORS, request_of

TIMEOUT_S: Final = 20.0
EXAMPLES: Final = 300
FIRST, SECOND = "the default front", "the other front"
UUID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MOMENT: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
ROUTES: Final[dict[str, Any]] = asking.vectors("routes.json")[0]
TYPES: Final = ("Workload", "Account", "User", "File", "Index", "Profile")
OTHERS: Final = tuple(name for name in fronts.FRONTS if name != fronts.DEFAULT)


def same(text: bytes) -> bytes:
    """Without what no two decisions share."""
    return MOMENT.sub(b"<moment>", UUID.sub(b"<id>", text))


def same_record(line: bytes) -> dict[str, Any]:
    """A record, likewise."""
    record: dict[str, Any] = json.loads(same(line))
    record["timing_us"] = dict.fromkeys(record["timing_us"], 0)
    for signal in record.get("signals", []):
        if "age_ms" in signal:
            signal["age_ms"] = 0
    return record


@dataclass
class Pair:
    """Two servers that differ in their front alone."""

    apps: dict[str, App]
    roots: dict[str, Path]
    calls: dict[str, Callable[..., Any]]
    asked: int = 0
    told: Counter[str] = field(default_factory=Counter)

    def compare(self, request: bytes) -> str:
        """Asks both; fails unless they say the same. Returns the reason."""
        answers = {name: bytes(call(request, timeout=TIMEOUT_S)) for name, call in self.calls.items()}
        self.asked += 1
        usual, *others = (same(answer) for answer in answers.values())
        for other in others:
            assert other == usual, {name: asking.parsed(answer) for name, answer in answers.items()}
        reason = asking.reason_of(answers[FIRST])
        self.told[reason] += 1
        return reason

    def has_recorded(self) -> bool:
        """Whether all that was asked stands in both logs."""
        return all(len(self.decisions(name)) >= self.asked for name in self.apps)

    def decisions(self, name: str) -> list[dict[str, Any]]:
        """The decision records of one, in their order."""
        lines = (self.roots[name] / "var" / "decisions.jsonl").read_bytes().splitlines()
        return [same_record(line) for line in lines if b'"kind":"decision"' in line[:200]]


def laid(root: Path, files: dict[str, str], settings_text: str) -> Path:
    listen = 'listen: {check: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
    texts = {"signals.yaml": "signals: {}\n", "entities.json": "[]\n", **files}
    texts["signalwarden.yaml"] = f"trust_domain: prod.example\n{listen}watch: false\n{settings_text}"
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@contextmanager
def pair(base: Path, other: str, files: dict[str, str], settings_text: str = "") -> Iterator[Pair]:
    """The default front and another, on two copies of a directory."""
    first = laid(base / "first", files, settings_text)
    second = shutil.copytree(first, base / "second")
    roots = {FIRST: first, SECOND: fronts.choose(second, other)}
    with ExitStack() as stack:
        apps = {name: stack.enter_context(running(root)) for name, root in roots.items()}
        calls: dict[str, Callable[..., Any]] = {}
        for name, app in apps.items():
            options = [("grpc.max_send_message_length", -1)]
            channel = stack.enter_context(grpc.insecure_channel(app.check_address, options=options))
            calls[name] = channel.unary_unary(
                CHECK_METHOD, request_serializer=bytes, response_deserializer=bytes
            )
        yield Pair(apps, roots, calls)


@pytest.fixture(scope="module", params=OTHERS)
def other(request: pytest.FixtureRequest) -> str:
    """The front to hold against the default one."""
    return str(request.param)


@pytest.fixture(scope="module")
def accounts(other: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The directory of `reasons.json`, with its signals published, tokens taken and questions asked."""
    said = clients({asking.PUBLISHER: "publish"})
    identity = json.dumps({"sources": ["envoy_peer"]})
    with pair(
        tmp_path_factory.mktemp("accounts"), other, VECTORS["directory"], f"{said}identity: {identity}\n"
    ) as both:
        observed = datetime.now(UTC).isoformat()
        for app in both.apps.values():
            for signal in VECTORS["signals"]:
                item = {"subject": asking.AGENT, "observed_at": observed, **signal}
                with who(app, asking.PUBLISHER) as publisher:
                    answer = publisher.publish(json.dumps({"signals": [item]}).encode())
                assert answer["accepted"] == 1, answer
        yield both


@pytest.fixture(scope="module")
def bank(other: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A directory of many routes without signals."""
    files = {
        "routes.yaml": ROUTES["tables"]["bank"],
        "entities.cedarschema": "\n".join(f"entity {name};" for name in TYPES),
        "policies/all.cedar": "permit (principal, action, resource);\n",
    }
    with pair(tmp_path_factory.mktemp("bank"), other, files) as both:
        yield both


@pytest.fixture(scope="module")
def generated(other: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The directory of generated requests."""
    with pair(tmp_path_factory.mktemp("generated"), other, test_decode.FILES) as both:
        yield both


# ---- answers ----------------------------------------------------------------------------------------------


def test_each_reason_has_the_same_answer(accounts: Pair) -> None:
    cases = [
        case
        for case in CASES
        if case["reason"] not in BY_CHECK_ALONE and not {"engine", "token", "log", "require_record"} & {*case}
    ]
    for case in cases:
        accounts.compare(request_of(case))
    assert len(accounts.told) > 8, accounts.told


def test_each_route_has_the_same_answer(bank: Pair) -> None:
    for case in ROUTES["cases"]:
        sent = case["request"]
        body = sent["body"].encode() if "body" in sent else None
        headers = (
            {"content-type": "application/json", **sent.get("headers", {})}
            if body is not None
            else sent.get("headers")
        )
        bank.compare(
            bytes(
                asking.check_request(
                    sent["method"], sent["host"], sent["path"], headers=headers, body=body,
                    extensions=sent.get("extensions"),
                )
            )
        )  # fmt: skip
    assert {"allowed", "route_unknown", "malformed_request"} <= {*bank.told}


QUIETLY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


@QUIETLY
@given(test_decode.requests().map(bytes))
def test_each_generated_request_has_the_same_answer(generated: Pair, request_bytes: bytes) -> None:
    generated.compare(request_bytes)


@QUIETLY
@given(st.one_of(hostile, st.binary(max_size=2_000)))
def test_noise_has_the_same_answer(bank: Pair, noise: bytes) -> None:
    assert bank.compare(noise) != "allowed"


@pytest.mark.parametrize("size", [0, 1, 16_384, 65_535, 65_536, 1 << 20, (4 << 20) - 4_096])
def test_a_request_of_any_size_has_the_same_answer(bank: Pair, size: int) -> None:
    padded = asking.check_request(
        host="payments.example", path="/v1/users/@me", headers={"x-padding": "y" * size}
    )
    assert bank.compare(bytes(padded)) in ("allowed", "malformed_request")


# ---- records: last, of all that was asked above -----------------------------------------------------------


def test_the_records_are_the_same(
    accounts: Pair, bank: Pair, generated: Pair, eventually: Eventually
) -> None:
    for both in (accounts, bank, generated):
        eventually(both.has_recorded, TIMEOUT_S)
        mine, theirs = (both.decisions(front) for front in both.apps)
        assert len(mine) == both.asked > 0
        assert theirs == mine


def test_what_is_made_equal_is_no_more_than_it_says() -> None:
    decided = asking.decide(asking.running(asking.load(test_decode.FILES)), b"")
    assert same(decided.answer) != decided.answer
    assert same(b"01a20d2e-e225-7eba-82f3-6812fbaf3409 2026-11-24T10:51:46.085292Z") == b"<id> <moment>"
    assert (
        same(b"01a20d2e-e225-4eba-82f3-6812fbaf3409 2026-11-24")
        == b"01a20d2e-e225-4eba-82f3-6812fbaf3409 2026-11-24"
    )
