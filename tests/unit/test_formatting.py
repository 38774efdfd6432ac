"""`signalwarden fmt`: policies in Cedar's own layout, no comment lost, nothing half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from signalwarden import _core, formatting
from signalwarden.errors import BadInputError, ConfigurationError
from tests.commanding import Commands
from tests.unit.test_cli import EXAMPLES, ROOT

LOOSE = '// why\n@id("a") permit(principal,action,resource)when{context.signals has x}; // end\n// last\n'
TIDY = '// why\n@id("a")\npermit (principal, action, resource)\nwhen { context.signals has x }; // end\n// last\n'


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capfd)


def test_policies_are_laid_out_as_cedar_does_and_comments_stay(run: Commands, tmp_path: Path) -> None:
    policies = tmp_path / "policies" / "a"
    policies.mkdir(parents=True)
    for name in ("loose.cedar", "tidy.cedar", ".hidden.cedar", "notes.md", "p.rego"):
        (policies / name).write_text(LOOSE if name != "tidy.cedar" else TIDY)
    ran = run("fmt", tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"formatted {policies / 'loose.cedar'}\n1 file changed, 1 as they should be\n"
    assert (policies / "loose.cedar").read_text() == TIDY
    assert all((policies / name).read_text() == LOOSE for name in (".hidden.cedar", "notes.md", "p.rego"))
    assert run("fmt", tmp_path).out == "0 files changed, 2 as they should be\n"


def test_check_changes_nothing_and_says_what_would(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "p.cedar"
    file.write_text(LOOSE)
    ran = run("fmt", "--check", file)
    assert ran.status == 1
    assert ran.out == f"would format {file}\n1 file would change, 0 as they should be\n"
    assert file.read_text() == LOOSE
    ran = run("fmt", "--check", "--json", file)
    assert (ran.status, ran.json()) == (1, {"changed": [str(file)], "unchanged": 0, "findings": []})
    file.write_text(TIDY)
    assert run("fmt", "--check", file).status == 0


def test_a_file_with_a_mistake_is_left_alone_and_its_place_named(run: Commands, tmp_path: Path) -> None:
    broken, latin, loose = tmp_path / "a.cedar", tmp_path / "b.cedar", tmp_path / "c.cedar"
    broken.write_text("permit (principal, action, resource);\npermit(nobody);\n")
    latin.write_bytes(b"// caf\xe9\n")
    loose.write_text(LOOSE)
    ran = run("fmt", tmp_path)
    assert ran.status == 2
    assert f"{broken}:2:" in ran.err
    assert f"{latin}: error: expected UTF-8 text" in ran.err
    assert "permit(nobody)" in broken.read_text()
    assert loose.read_text() == TIDY


def test_a_link_stays_a_link_and_the_mode_is_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.cedar", tmp_path / "link.cedar"
    real.write_text(LOOSE)
    real.chmod(0o640)
    link.symlink_to(real)
    assert formatting.run([link], check=False).changed == [link]
    assert link.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == (TIDY, 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.cedar", "real.cedar"]


def test_what_is_no_policy_file_is_refused(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "p.rego"
    file.write_text("package x\n")
    assert (
        "is not formatted: expected a directory, or a file that ends in `.cedar`" in run("fmt", file).sentence
    )
    with pytest.raises(BadInputError):
        formatting.files([tmp_path / "nowhere"])
    assert run("fmt", tmp_path / "none.cedar").status == 2


def test_a_comment_between_tokens_and_a_text_like_one_are_kept() -> None:
    text = (
        '// head\n\n// more\n@id("a // no comment \\" b") // id\npermit (principal // who\n == ?principal, action, '
        '// what\nresource) when { // why\n context.request.path // the path\n == "// x" };'
    )
    once = _core.format_cedar("p.cedar", text)
    assert _core.format_cedar("p.cedar", once) == once
    for comment in ("// head", "// more", "// id", "// who", "// what", "// why", "// the path"):
        assert once.count(comment) == 1, once
    assert '"// x"' in once
    assert 'a // no comment \\" b' in once


def test_a_mistake_names_the_file_that_was_given() -> None:
    with pytest.raises(ConfigurationError) as raised:
        _core.format_cedar("policies/x.cedar", "permit")
    assert [finding.file for finding in raised.value.findings] == ["policies/x.cedar"]


def test_every_policy_that_we_ship_is_laid_out_so(tmp_path: Path) -> None:
    folders = [*EXAMPLES, ROOT / "python" / "signalwarden" / "templates"]
    done = formatting.run(formatting.files(folders), check=True)
    assert (done.changed, done.findings) == ([], [])
    assert done.unchanged >= 5
