"""h2spec, where `make test-h2spec` has built it; elsewhere no test is here."""

from __future__ import annotations

import os

# Set by `make test-h2spec`: `make test` is complete without these tests.
PROGRAMS = os.environ.get("SIGNALWARDEN_H2SPEC")
collect_ignore_glob = [] if PROGRAMS else ["test_*.py"]
