"""The register as people see it: the list, the path of a signal, the document for auditors, and who may ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from signalwarden import config, register, register_document, starter
from signalwarden.app import App
from signalwarden.config import Address
from signalwarden.errors import BadInputError
from signalwarden.terminal import console
from tests.commanding import Commands

NOW_US: Final = 1_795_514_400_000_000
TIME: Final = "2026-11-24T10:00:00.000000Z"
HOSTILE: Final = "<script>alert(1)</script> | `x` *b* [l](http://evil) &amp; \u202e\x1b[2J"
STATS: Final = {
    "signals": [
        {
            "name": "posture", "states": {"fresh": 7, "stale": 1}, "recent": {"stale": 1, "fresh": 3, "future": 0},
            "rejected": {"older": 2}, "age_buckets": [[1, 2], [10, 6]], "age_count": 8, "age_sum": 61.5,
            "subjects": 4, "freshest": "2026-11-24T09:59:57.000000Z", "oldest": "2026-11-24T07:00:00.000000Z",
        }
    ]
}  # fmt: skip


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.delenv("SIGNALWARDEN_TOKEN", raising=False)
    return Commands(capfd)


@pytest.fixture
def made(tmp_path: Path) -> starter.Starter:
    return starter.create(tmp_path / "refunds", now=datetime.fromtimestamp(NOW_US / 1e6, UTC))


@pytest.fixture
def described(made: starter.Starter) -> dict[str, Any]:
    described: dict[str, Any] = orjson.loads(config.load(made.directory, NOW_US).configuration.describe())
    return described


# ---- list and show ----------------------------------------------------------------------------------------


def test_the_list_says_who_answers_where_it_comes_from_and_who_reads_it(
    run: Commands, made: starter.Starter
) -> None:
    status, out, err = run("signals", "list", "--offline", "--config", made.directory)
    assert (status, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split("  ")[0] == "name"
    row = next(row for row in rows if row.startswith("posture "))
    for part in ("restrict", "team-detection@prod.example", "Stop refunds by a workload",
                 f"push {starter.PUBLISHER} (authoritative)", "compromised-workloads-refund-nothing"):  # fmt: skip
        assert part in row
    listed = json.loads(run("signals", "list", "--offline", "--config", made.directory, "--json")[1])
    assert [contract["name"] for contract in listed["signals"]] == ["device_trust", "posture", "task_type"]
    assert {contract["live"] for contract in listed["signals"]} == {None}


def test_the_list_asks_the_server_unless_told_not_to(run: Commands, made: starter.Starter) -> None:
    status, out, err = run("signals", "list", "--config", made.directory)
    assert (status, out) == (2, "")
    assert "SIGNALWARDEN_TOKEN" in err


def test_live_numbers_stand_beside_the_contract(described: dict[str, Any]) -> None:
    from signalwarden.register_view import path_tree, register_table

    joined = register.join(described, STATS, time=TIME)
    live = {contract["name"]: contract["live"] for contract in joined["signals"]}
    assert live["device_trust"] is None
    assert live["posture"]["subjects"] == 4
    assert "name" not in live["posture"]
    shown = rendered(register_table(joined))
    row = next(row for row in shown.splitlines() if row.startswith("posture "))
    for part in (" 4 ", "3.0s ago", "3h ago", "3 fresh, 1 stale"):
        assert part in row
    tree = rendered(path_tree(register.path_of(joined, "posture")))
    assert "subjects: 4, freshest 3.0s ago, oldest 3h ago" in tree
    assert "states since the start: 7 fresh, 1 stale" in tree
    assert "refused since the start: 2 older" in tree


def rendered(shown: Any) -> str:
    out = console()
    with out.capture() as captured:
        out.print(shown)
    return captured.get()


def test_show_draws_the_path_from_the_source_to_the_routes(run: Commands, made: starter.Starter) -> None:
    status, out, err = run("signals", "show", "device_trust", "--config", made.directory)
    assert status == 0
    assert "from the directory alone" in err
    order = [
        "device_trust  long about principal, influence grant", "fresh for 5m", "when unavailable: deny", "comes from",
        f"push {starter.PUBLISHER} (authoritative)", "read by", "policies/refunds.cedar:", "may influence",
        "refund.create  tier runtime", "routes.yaml:", "declared exceptions", "none", "live",
    ]  # fmt: skip
    places = [out.find(part) for part in order]
    assert -1 not in places, out
    assert places == sorted(places)
    path = json.loads(
        run("signals", "show", "device_trust", "--offline", "--config", made.directory, "--json")[1]
    )
    assert path["signal"]["name"] == "device_trust"
    assert [action["action"] for action in path["actions"]] == ["refund.create"]
    assert [route["action"] for action in path["actions"] for route in action["routes"]] == ["refund.create"]
    assert {policy["file"] for policy in path["policies"]} == {"policies/refunds.cedar"}


def test_a_name_that_is_not_registered_is_one_sentence(run: Commands, made: starter.Starter) -> None:
    status, out, err = run("signals", "show", "postur", "--offline", "--config", made.directory)
    assert (status, out) == (2, "")
    assert err == "signalwarden: no signal `postur` is registered, did you mean `posture`?\n"


def test_the_path_names_feeds_merging_modes_and_exceptions(described: dict[str, Any]) -> None:
    from signalwarden.register_view import path_tree

    contract = described["signals"][1]
    contract["sources"] = [
        {"kind": "poll", "feed": "file", "assurance": "sourced"},
        {"kind": "ssf", "feed": "idp", "assurance": "sourced", "while_live": True, "events": {"x": 1}},
    ]
    contract |= {
        "merge": "agree",
        "adverse": {"one_of": ["compromised"]},
        "approvers": [{"id": "a@x", "ed25519": "k"}],
    }
    described["feeds"] = [{"feed": "idp", "kind": "ssf", "issuer": "https://idp.example", "line": 3},
                          {"feed": "other", "kind": "poll", "line": 9}]  # fmt: skip
    for policy in described["policies"]:
        policy |= {"effect": "forbid", "mode": "observe"}
    described["routes"] = [{**route, "enforce": False} for route in described["routes"]]
    described["exceptions"] = ["signals.yaml:3: `posture` is open", "signals.yaml:9: `device_trust` is not"]
    path = register.path_of(register.join(described, None, time=TIME), "posture")
    assert [feed["feed"] for feed in path["feeds"]] == ["idp"]
    assert path["exceptions"] == ["signals.yaml:3: `posture` is open"]
    tree = rendered(path_tree(path))
    for part in ("merge: agree", "poll file (sourced)", 'ssf idp (sourced) {"events":{"x":1},"while_live":true}',
                 'feed idp, signals.yaml:3: {"issuer":"https://idp.example"}', "forbid observe", "not enforced",
                 'adverse: {"one_of":["compromised"]}', "approved by a@x", "`posture` is open"):  # fmt: skip
        assert part in tree, part


def test_a_signal_without_max_age_says_why(described: dict[str, Any]) -> None:
    from signalwarden.register_view import path_tree

    described["signals"][1]["max_age_ms"] = None
    described["signals"][1]["sources"] = [
        {"kind": "derived", "measure": "requests", "window": "1m", "assurance": "derived"}
    ]
    joined = register.join(described, None, time=TIME)
    assert "counted at each decision" in rendered(path_tree(register.path_of(joined, "posture")))
    assert "rides on the request" in rendered(path_tree(register.path_of(joined, "task_type")))


def test_every_source_kind_has_its_line() -> None:
    text = register.source_text
    assert text({"kind": "header", "header": "x-a", "assurance": "self_asserted"}) == "header x-a"
    assert text({"kind": "envoy_metadata", "namespace": "jwt", "key": "sub"}) == "envoy_metadata jwt/sub"
    claim = {"kind": "token_claim", "issuer": "https://login.example", "claim": ["tctx", "agent_type"]}
    assert text(claim) == "token_claim https://login.example/tctx/agent_type"
    assert text({"kind": "peer", "zones": {}, "assurance": "derived"}) == "peer"
    assert text({"kind": "derived", "measure": "requests", "window": "1m"}) == "derived requests/1m"
    assert (
        register.source_details({"kind": "peer", "zones": {"a": 1}, "assurance": "x"}) == '{"zones":{"a":1}}'
    )


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(None, "-"), (0, "0s"), (250, "250ms"), (90_000, "90s"), (300_000, "5m"), (86_400_000, "1d")]
)  # fmt: skip
def test_spans_read_as_contracts_write_them(milliseconds: int | None, text: str) -> None:
    assert register.span_text(milliseconds) == text


def test_hostile_text_is_text_on_a_terminal(described: dict[str, Any]) -> None:
    from signalwarden.register_view import path_tree, register_table

    described["signals"][1] |= {"purpose": HOSTILE, "owner": HOSTILE, "description": f"[bold]{HOSTILE}"}
    joined = register.join(described, None, time=TIME)
    for shown in (rendered(register_table(joined)), rendered(path_tree(register.path_of(joined, "posture")))):
        assert not set(shown) & {"\x1b", "\u202e"}
        assert "<script>" in shown
    assert "[bold]" in rendered(path_tree(register.path_of(joined, "posture")))


# ---- the document -----------------------------------------------------------------------------------------


def test_the_document_says_all_of_every_contract(
    run: Commands, made: starter.Starter, described: dict[str, Any]
) -> None:
    status, out, err = run("signals", "document", "--config", made.directory)
    assert (status, err) == (0, "")
    plain = out.replace("\\", "")
    assert described["revision"] in plain
    for contract in described["signals"]:
        part = plain.split(f"\n## Signal {contract['name']}\n")[1].split("\n## ")[0]
        for key, value in contract.items():
            if isinstance(value, str):
                assert value in part, key
        for key in ("used_by", "read_by"):
            assert all(name in part for name in contract[key])
        for source in contract["sources"]:
            assert register.source_text(source) in part
            assert source["assurance"] in part
        assert f"signals.yaml:{contract['line']}" in part
    for name, digest in described["files"].items():
        assert f"| {name} | {digest} |" in plain
    assert plain.index("## Reviews, soonest first") > plain.index("## Declared exceptions")


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_the_same_directory_gives_the_same_bytes(
    run: Commands, made: starter.Starter, tmp_path: Path, form: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        assert run("signals", "document", "--format", form, "-o", path, "--config", made.directory) == (
            0,
            "",
            "",
        )
    assert first.read_bytes() == second.read_bytes()
    assert run("signals", "document", "--format", form, "--config", made.directory)[1] == first.read_text()
    assert str(tmp_path) not in first.read_text()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_text_of_the_register_is_never_markup(described: dict[str, Any]) -> None:
    described["signals"][1] |= {
        "purpose": HOSTILE,
        "description": f"- {HOSTILE}",
        "justification": '"><img src=x onerror=y>',
    }
    described["exceptions"] = [f"signals.yaml:3: `posture` {HOSTILE}"]
    page = register_document.as_html(described, trust_domain="prod.example")
    parser = _Tags()
    parser.feed(page)
    assert parser.tags == {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "p",
        "table",
        "tr",
        "th",
        "td",
    }
    assert parser.attributes == {"lang", "charset", "http-equiv", "content"}
    assert any("<script>alert(1)</script>" in text for text in parser.text)
    assert not re.search(r"https?://(?!evil)|url\(|@import", page)
    text = register_document.as_markdown(described, trust_domain="prod.example")
    assert "\\<script\\>alert(1)\\</script\\> \\| \\`x\\` \\*b\\* \\[l\\](http://evil) \\&amp;" in text
    assert "\n\\- \\<script" in text
    columns = {
        line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| posture")
    }
    assert columns == {8}
    assert not set(text + page) & {"\x1b", "\u202e"}


def test_a_document_that_can_not_be_written_is_one_sentence(
    run: Commands, made: starter.Starter, tmp_path: Path
) -> None:
    status, out, err = run("signals", "document", "-o", tmp_path / "no" / "file", "--config", made.directory)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "can't be written: no such file" in err


# ---- a running server -------------------------------------------------------------------------------------


@pytest.fixture
def served(made: starter.Starter, tmp_path: Path) -> Iterator[App]:
    settings = made.directory / "signalwarden.yaml"
    check, admin = f"unix://{tmp_path}/check.sock", f"unix://{tmp_path}/admin.sock"
    settings.write_text(
        settings.read_text().replace("127.0.0.1:9191", check).replace("127.0.0.1:9292", admin)
    )
    app = App(made.directory, clock=lambda: NOW_US)
    app.start()
    yield app
    app.stop()


def test_the_server_tells_the_register_in_force_to_who_may_read(
    run: Commands, made: starter.Starter, served: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALWARDEN_TOKEN", made.operator_token)
    status, out, err = run("signals", "list", "--json", "--config", made.directory)
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["time"] == TIME
    assert [contract["name"] for contract in told["signals"]] == ["device_trust", "posture", "task_type"]
    assert all("live" in contract for contract in told["signals"])
    assert run("signals", "show", "posture", "--config", made.directory)[2] == ""
    # What is in force counts, not what the directory says by now.
    (made.directory / "signals.yaml").write_text("signals: {}\n")
    assert run("signals", "show", "posture", "--config", made.directory)[0] == 0
    monkeypatch.setenv("SIGNALWARDEN_TOKEN", made.publisher_token)
    status, out, err = run("signals", "list", "--config", made.directory)
    assert (status, out) == (2, "")
    assert "`right_missing`" in err


def test_a_path_of_a_name_that_the_server_does_not_have_is_refused(served: App) -> None:
    with pytest.raises(BadInputError):
        register.path_of(orjson.loads(served.register()), "nothing")
    assert str(Address.parse(served.admin_address)) == served.admin_address
