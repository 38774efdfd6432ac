"""`signalwarden log export`: the log in three formats, from plain and compressed files, with bad lines named."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path

import orjson
import pytest

from signalwarden.cli import _run
from signalwarden.decision_log import now_us, rfc3339
from tests.unit.test_log_shipping import CHANGE, decision, lines

DAY_US = 86_400_000_000


@pytest.fixture
def root(minimal_directory: Path) -> Path:
    """Three days ago (compressed), yesterday, now."""
    var = minimal_directory / "var"
    var.mkdir()
    at = [now_us() - age * DAY_US for age in (3, 1, 0)]
    stamped = [decision(n, outcome="deny") | {"time": rfc3339(moment)} for n, moment in enumerate(at)]
    packed = var / "decisions-000001-20261123T101500Z.jsonl.gz"
    packed.write_bytes(gzip.compress(lines(CHANGE, stamped[0])))
    (var / "decisions.jsonl").write_bytes(lines(*stamped[1:]))
    return minimal_directory


def exported(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes], *arguments: str, status: int = 0
) -> tuple[list[bytes], str]:
    assert _run(["log", "export", *arguments, "--config", str(root)]) == status
    out, err = capfdbinary.readouterr()
    return out.splitlines(), err.decode()


def test_lines_are_as_they_stand_in_all_files(root: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    found, err = exported(root, capfdbinary)
    assert len(found) == 4
    assert found[0] == orjson.dumps(CHANGE)
    assert err == ""


@pytest.mark.parametrize(("format_", "key"), [("opa", ("result", "reason")), ("ocsf", ("api", "operation"))])
def test_other_formats_have_decisions_alone(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes], format_: str, key: tuple[str, str]
) -> None:
    found, _ = exported(root, capfdbinary, "--format", format_)
    assert [orjson.loads(event)[key[0]][key[1]] for event in found] == [
        "policy_denied" if format_ == "opa" else "refund.create"
    ] * 3


@pytest.mark.parametrize(("since", "count"), [("2d", 2), ("1h", 1), ("1999-01-01T00:00:00Z", 4)])
def test_since_is_a_span_or_a_time(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes], since: str, count: int
) -> None:
    assert len(exported(root, capfdbinary, "--since", since)[0]) == count


def test_lines_that_are_no_records_are_left_out_and_said(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = root / "var" / "decisions.jsonl"
    log.write_bytes(b"{half\n[]\n" + log.read_bytes() + b'{"kind": "deci')
    found, err = exported(root, capfdbinary)
    assert len(found) == 4
    assert err == f"signalwarden: 3 lines are no records and were left out, the first at `{log}:1`\n"


def test_a_file_is_made_for_its_owner_and_never_written_over(
    root: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    target = tmp_path / "out.jsonl"
    exported(root, capfdbinary, "--output", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert len(target.read_bytes().splitlines()) == 4
    _, err = exported(root, capfdbinary, "--output", str(target), status=2)
    assert err == f"signalwarden: `{target}` can't be made: file exists\n"


@pytest.mark.parametrize("since", ["yesterday", "2026-11-24", "-1h", "99999d"])
def test_a_time_that_is_none_is_one_sentence(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes], since: str
) -> None:
    _, err = exported(root, capfdbinary, f"--since={since}", status=2)
    assert len(err.splitlines()) == 1
    assert f"`{since}`" in err


def test_a_compressed_file_that_is_damaged_is_one_sentence(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    packed = next((root / "var").glob("*.gz"))
    packed.write_bytes(packed.read_bytes()[:-9])
    _, err = exported(root, capfdbinary, status=2)
    assert err == f"signalwarden: `{packed}` can't be read: it is cut off or damaged\n"
