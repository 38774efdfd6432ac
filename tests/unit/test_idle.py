"""What an idle server holds in memory: only what serves, by the names of its modules. How much that is, is measured in
`bench`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from signalwarden.cli import verbs

CLI: Final = Path(verbs.__file__).parent

# What the settings of a plain directory do not ask for, and why it would come all the same.
LATE: Final = {
    "grpc": "the native front door has none",
    "google.protobuf": "of gRPC",
    "opentelemetry.proto": "no collector",
    "opentelemetry.sdk": "no collector",
    "rich": "tables of other verbs",
    "signalwarden.terminal": "tables of other verbs",
    "signalwarden.decision_log.tail": "a verb of its own",
    "httpcore": "nothing is fetched",
    "h2": "of httpcore",
    "httpx": "of other verbs",
    "jwt": "no token is read, no grant signed",
    "cryptography.x509": "no door with TLS, no trust bundle",
    "signalwarden.mtls": "no door with TLS",
    "signalwarden.bundles.sources": "no trust bundle",
    "signalwarden.bundles.workload_api": "no agent",
    "signalwarden.decision_log.shipping.building": "no sink",
    "signalwarden.difference": "nothing has changed",
    "prometheus_client": "nobody has scraped",
    "signalwarden.metrics": "nobody has scraped",
}

# Serves as the command line does, and says which modules are there once it is ready.
SERVE: Final = """
import sys
from signalwarden import app, cli

class Looked(app.App):
    def run_forever(self):
        self.start()
        {then}
        self.stop()
        print(*sorted(sys.modules))

app.App = Looked
cli.main()
"""


def loaded(directory: Path, then: str = "pass") -> set[str]:
    """The modules of a server of this directory after its start, and after what is done `then`."""
    command = [sys.executable, "-c", SERVE.format(then=then), "serve", "--config", str(directory)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.fixture
def native(minimal_directory: Path) -> Path:
    settings = minimal_directory / "signalwarden.yaml"
    settings.write_text(settings.read_text().replace("listen: {", "listen: {front: native, "))
    return minimal_directory


def test_what_comes_late_is_there_to_come() -> None:
    assert [name for name in LATE if find_spec(name) is None] == [], (
        "named as it is: else it could never be seen"
    )


def test_an_idle_server_has_loaded_only_what_it_serves_with(native: Path) -> None:
    assert sorted(LATE.keys() & loaded(native)) == []


def test_a_server_that_is_started_again_unchanged_loads_no_words_of_a_change(native: Path) -> None:
    loaded(native)
    assert "signalwarden.difference" not in loaded(native)
    policy = native / "policies" / "pages.cedar"
    policy.write_text(policy.read_text() + 'forbid (principal, action == Action::"page.read", resource);\n')
    assert "signalwarden.difference" in loaded(native)


def test_what_is_left_out_comes_when_it_is_asked_for(native: Path) -> None:
    assert {"prometheus_client", "signalwarden.families"} <= loaded(native, "self.metrics_text()")
    assert {"jwt", "signalwarden.jwts"} <= loaded(native, "self.tasks.jwks()")


def test_a_server_loads_no_other_verb(native: Path) -> None:
    own = {
        name.removeprefix("signalwarden.cli.")
        for name in loaded(native)
        if name.startswith("signalwarden.cli.")
    }
    assert own == {"options", "server", "verbs"}


# ---- the table of verbs ---------------------------------------------------------------------------------


def test_every_file_with_verbs_stands_in_the_table() -> None:
    # Those of `log` are added by `log` itself.
    with_verbs = {
        path.stem
        for path in CLI.glob("*.py")
        if "\ndef add(" in path.read_text(encoding="utf-8") and not path.stem.startswith("log_")
    }
    assert {file for files in verbs.VERBS.values() for file in files} == with_verbs


def test_every_verb_is_in_the_files_that_the_table_names() -> None:
    look = (
        "from signalwarden.cli import verbs\n"
        "for files in dict.fromkeys(verbs.VERBS.values()): print(*files, *sorted(verbs._commands(files)), sep=' ')"
    )
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    told = [
        " ".join((*files, *sorted(verb for verb, of in verbs.VERBS.items() if of == files)))
        for files in dict.fromkeys(verbs.VERBS.values())
    ]
    assert ran.stdout.splitlines() == told


@pytest.mark.parametrize("typed", ["signalwarden ", "signalwarden s"])
def test_completion_offers_every_verb(typed: str) -> None:
    environment = {
        **os.environ,
        "_SIGNALWARDEN_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": "1",
    }
    look = "from signalwarden import cli; cli.main()"
    ran = subprocess.run(
        [sys.executable, "-c", look], env=environment, capture_output=True, text=True, timeout=60
    )
    begun = typed.split()[1] if typed.split()[1:] else ""
    assert ran.stdout.split() == [verb for verb in verbs.VERBS if verb.startswith(begun)]
