"""Being less strict by configuration is a change record with its author, each way of it; what is not built is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalwarden.app import App
from signalwarden.difference.parts import settings
from signalwarden.errors import ConfigurationError
from tests.pages import hold

OPS = "spiffe://prod.example/people/anna"
SIGNAL = """\
signals:
  posture:
    {type: "enum[ok, bad]", subject: principal, max_age: 5m, influence: restrict, used_by: [page.read], description: d,
     owner: o@x, purpose: p, review_by: 2099-01-01, sources: [{kind: push, publisher: "spiffe://prod.example/feed",
     assurance: authoritative}]}
"""
CLIENT = f"""\
clients:
  - {{id: "spiffe://prod.example/feed", may: [publish], token_sha256: "{"0" * 64}", expires: "2099-01-01T00:00:00Z"}}
"""
ABSENT = SIGNAL.replace(
    "owner:", "when_unavailable: absent, justification: a restart must not stop reading, owner:"
)
ROUTE = """\
  - {match: {host: "pages.example", method: GET, path: "/more"}, action: page.more, resource: {type: Page, id: "more"},
     tier: runtime, sensitivity: low, enforce: false}
default: deny
"""


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    (minimal_directory / "signals.yaml").write_text(SIGNAL)
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(settings.read_text() + CLIENT)
    (minimal_directory / "policies/posture.cedar").write_text(
        'forbid (principal, action == Action::"page.read", resource)\n'
        'when { context.signals has posture && context.signals.posture == "bad" };\n'
    )
    return minimal_directory


@pytest.fixture
def app(root: Path) -> Iterator[App]:
    started = App(root)
    started.start()
    yield started
    started.stop()


def changed(root: Path) -> dict[str, Any]:
    """The last record of a configuration."""
    lines = [json.loads(line) for line in (root / "var/decisions.jsonl").read_bytes().splitlines()]
    hold(lines)
    found: list[dict[str, Any]] = [
        line for line in lines if line.get("change", "").startswith("configuration_")
    ]
    return found[-1]


def said(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (word["part"], word["direction"], word["sentence"].partition(": ")[2]) for word in record["words"]
    ]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_route_that_is_no_longer_enforced(app: App, root: Path) -> None:
    edit(root / "routes.yaml", "    tier: runtime\n", "    tier: runtime\n    enforce: false\n")
    app.reload(OPS)
    app.stop()
    record = changed(root)
    assert record["actor"] == OPS
    assert said(record) == [("route", "widens", "its enforce was `true`, is `false`")]


def test_a_route_that_was_never_enforced(app: App, root: Path) -> None:
    edit(root / "routes.yaml", "default: deny\n", ROUTE)
    app.reload(OPS)
    app.stop()
    record = changed(root)
    assert record["actor"] == OPS
    assert ("route", "widens", "its enforce is `false`") in said(record)


def test_a_signal_whose_absence_is_let_pass(app: App, root: Path) -> None:
    (root / "signals.yaml").write_text(ABSENT)
    app.reload(OPS)
    app.stop()
    record = changed(root)
    assert record["actor"] == OPS
    words = said(record)
    assert ("signal", "widens", "its when_unavailable was `deny`, is `absent`") in words


def test_a_new_signal_whose_absence_is_let_pass(app: App, root: Path) -> None:
    other = ABSENT.replace("  posture:", "  shape:").replace("signals:\n", "")
    (root / "signals.yaml").write_text(SIGNAL + other)
    app.reload(OPS)
    app.stop()
    record = changed(root)
    assert record["actor"] == OPS
    assert ("signal", "may widen", "its when_unavailable is `absent`") in said(record)


def test_insecure_is_not_built_and_refused_with_who_tried(app: App, root: Path) -> None:
    edit(root / "signalwarden.yaml", "trust_domain:", "insecure: true\ntrust_domain:")
    with pytest.raises(ConfigurationError, match="insecure"):
        app.reload(OPS)
    app.stop()
    record = changed(root)
    assert (record["change"], record["actor"]) == ("configuration_refused", OPS)
    assert "insecure" in record["findings"][0]


def test_what_changed_while_the_server_was_down_is_told_at_its_start(app: App, root: Path) -> None:
    app.stop()
    edit(root / "routes.yaml", "    tier: runtime\n", "    tier: runtime\n    enforce: false\n")
    again = App(root)
    again.start()
    again.stop()
    record = changed(root)
    assert record["actor"] == "server"
    assert said(record) == [("route", "widens", "its enforce was `true`, is `false`")]


@pytest.mark.parametrize(
    ("key", "was", "now", "direction"),
    [
        ("approvals.need", 2, 1, "widens"),
        ("approvals.need", 1, 2, "narrows"),
        ("approvals.ttl", "15m", "1h", "widens"),
        ("approvals.max_open", 20, 40, "neutral"),
        ("approvals.actions.transfer.create.need", 2, None, "may widen"),
        ("approvals.actions.transfer.create.need", None, 2, "may widen"),
        ("tasks.max_ttl", "1h", "5m", "narrows"),
        ("tasks.max_depth", 4, 5, "widens"),
        ("tasks.types.invoice_run.idle", "2m", "5m", "widens"),
        ("tasks.retention", "24h", "1h", "neutral"),
        ("tasks.workflow_signal", "a", "b", "may widen"),
        ("overrides.max_ttl", "1h", "2h", "widens"),
    ],
)
def test_settings_of_what_is_granted_for_a_time_say_what_they_do(
    key: str, was: Any, now: Any, direction: str
) -> None:
    def nested(value: Any) -> dict[str, Any]:
        node: Any = value
        for part in reversed(key.split(".")):
            node = {part: node}
        return node  # type: ignore[no-any-return]

    ((name, found, _),) = settings(nested(was), nested(now))
    assert (name, found) == (key, direction)
