# Each verb works from a bare clone with Python >= 3.11 and a Rust toolchain, and sets up .venv itself, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
DEPENDENCIES := $(VENV)/.dependencies
EXTENSION := $(VENV)/.extension
RELEASE := $(VENV)/.release
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust_core/core rust_core/listener rust_core/mapped rust_core/pyext -name '*.rs' -o -name Cargo.toml)

# Each fuzz target: `make test` draws so many inputs, the same each time, for at most so long; `make fuzz` takes its time and
# looks where nobody has looked.
FUZZ_SECONDS ?= 300
FUZZ_SECONDS_IN_TEST ?= 10
FUZZ_RUNS_IN_TEST ?= 200000
FUZZ_TARGETS ?=
# `make test` goes on where the fuzzer's own tools are missing, and says so.
BENCH_SECONDS ?= 60
SOAK_SECONDS ?= 600
# What `make bench-locust` runs.
PROFILE ?= steady
DOOR ?= grpc
FRONT ?= grpcio
# Further arguments of a bench: make bench BENCH_ARGS="--peers none --front native"
BENCH_ARGS ?=
RESULTS := bench/results/local
# The result files that there are, in the order in which the page shows them.
MEASURED ?= $(wildcard $(RESULTS)/bench.json $(RESULTS)/scales.json $(RESULTS)/soak.json)
LOAD := target/release/load
# Arguments of tests/conformance/run.py
CONFORMANCE_ARGS ?=
# Arguments for pytest: make test PYTEST_ARGS="-k admin -x"
PYTEST_ARGS ?=

.PHONY: help demo test gate gate-baseline test-rust test-python test-spire test-h2spec conformance conformance-baseline lint bench bench-quick bench-scales bench-soak bench-locust bench-load bench-plots bench-page bench-reload bench-ingest bench-identity bench-tasks bench-log-reading bench-log-writing bench-rego bench-core fuzz format lock clean cargo

help: ## what each verb does
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- what is needed -------------------------------------------------------------------------------------

cargo:
	@cargo --version >/dev/null 2>&1 || { echo "signalwarden needs a Rust toolchain (cargo) on PATH: install one from your distribution or with rustup, then run make again." >&2; exit 2; }

$(BIN)/python:
	@for python in $${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	[ -n "$${found:-}" ] || { echo "signalwarden needs Python 3.11 or newer on PATH: install it, or name it with make PYTHON=/path/to/python3.11." >&2; exit 2; }; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); echo "$$found can't make a virtual environment: install its venv module (on Debian: python3-venv)." >&2; exit 2; }

$(DEPENDENCIES): requirements.lock | $(BIN)/python
	@echo 'installing what requirements.lock names into $(VENV) (a minute or two, once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

$(EXTENSION): $(RUST_SOURCES) pyproject.toml $(DEPENDENCIES) | cargo
	@echo "building the extension (minutes the first time, seconds after a change)"
	@PIP_QUIET=1 VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/maturin develop --quiet
	@touch $@

# Beside the extension that tests use: as users install it.
$(RELEASE): $(RUST_SOURCES) pyproject.toml $(shell find python -name '*.py') $(EXTENSION) | cargo
	rm -rf $(VENV)/release $(VENV)/wheels
	$(BIN)/maturin build --release --quiet --out $(VENV)/wheels
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/release $(VENV)/wheels/*.whl
	@touch $@

# The load and the floor of the bench: a few small crates, nothing of the engine.
$(LOAD): Cargo.toml Cargo.lock $(shell find bench/load -name '*.rs' -o -name Cargo.toml) | cargo
	cargo build --release --quiet -p signalwarden-load
	@touch $@

# ---- verbs ----------------------------------------------------------------------------------------------

demo: $(EXTENSION) ## a story with the real Envoy: who is let through, who is not, and why
	$(BIN)/signalwarden demo

test: test-rust test-python gate ## everything that must hold: Rust, Python, the real Envoy, a short fuzz

# Generated cases are the same in every run of `make test`, so that a change is judged by itself; a plain
# `cargo test` draws new ones each time.
test-rust: | cargo
	PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-20261124} cargo test --workspace --quiet
	rust_core/fuzz/run.sh $(FUZZ_SECONDS_IN_TEST) $(FUZZ_RUNS_IN_TEST)

# The same instructions are executed each time, whatever else the machine does. Without valgrind that is said, and is no failure.
gate: | cargo $(BIN)/python ## instructions of one check against bench/instructions.json: dearer by more than 3 % fails
	$(BIN)/python bench/gate.py

gate-baseline: | cargo $(BIN)/python ## makes today's counts the baseline
	$(BIN)/python bench/gate.py --write

# Real servers, kills and clocks on a machine with other work: what failed is run once more, alone, and stays in the
# output by name. What fails twice fails. Generated cases are drawn from one seed here, too; a plain `pytest` draws
# new ones.
test-python: PYTEST_ARGS += --hypothesis-seed=$(or $(HYPOTHESIS_SEED),20261124)
test-python: $(EXTENSION)
	$(BIN)/python -m pytest $(PYTEST_ARGS) || { \
	  echo "tests failed: they are run once more, by themselves; one that passes now is to be mended all the same" >&2; \
	  $(BIN)/python -m pytest $(PYTEST_ARGS) --last-failed --last-failed-no-failures none; }

# Not in `make test`: it builds two programs of Go. Where that can't be, it says so in a line, and that is no failure.
test-spire: $(EXTENSION) ## a real SPIRE server and agent, real SVIDs; builds both the first time (needs Go)
	@built=0; tests/spire/build.sh target/spire/bin || built=$$?; \
	case $$built in \
	  0) SIGNALWARDEN_SPIRE=target/spire/bin $(BIN)/python -m pytest tests/spire $(PYTEST_ARGS) ;; \
	  3) ;; \
	  *) exit $$built ;; \
	esac

# Not in `make test`, for the same reason.
test-h2spec: $(EXTENSION) ## h2spec against each front door: what deviates and is not written down fails (needs Go)
	@built=0; tests/h2spec/build.sh target/h2spec/bin || built=$$?; \
	case $$built in \
	  0) SIGNALWARDEN_H2SPEC=target/h2spec/bin $(BIN)/python -m pytest tests/h2spec $(PYTEST_ARGS) ;; \
	  3) ;; \
	  *) exit $$built ;; \
	esac

# Not in `make test`, for the same reason: the cases are fetched as a Go module.
conformance: | cargo $(BIN)/python ## OPA's Rego conformance cases against tests/conformance/baseline.json, which may only get better (needs Go)
	@there=0; tests/conformance/cases.sh target/conformance/cases.jsonl || there=$$?; \
	case $$there in \
	  0) cargo run --quiet -p signalwarden-core --features conformance --example rego_cases -- target/conformance/cases.jsonl >target/conformance/standings.jsonl && \
	     $(BIN)/python tests/conformance/run.py target/conformance/standings.jsonl $(CONFORMANCE_ARGS) ;; \
	  3) ;; \
	  *) exit $$there ;; \
	esac

conformance-baseline: CONFORMANCE_ARGS += --write
conformance-baseline: conformance ## makes today's standings the baseline, and writes docs/rego-conformance.md

lint: $(EXTENSION) ## formatting, clippy, ruff, mypy --strict, and the stub against the binary
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/python -m mypy.stubtest signalwarden._core

format: $(EXTENSION) ## puts everything into the form that lint wants
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(RELEASE) $(LOAD) ## signalwarden beside a floor, grpcio and the peers, straight and through Envoy: under 15 minutes
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/run.py --out $(RESULTS)/bench.json $(BENCH_ARGS)

bench-quick: $(RELEASE) $(LOAD) ## the same with one short round of each: does it still run, under two minutes
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/run.py --quick --out $(RESULTS)/quick.json $(BENCH_ARGS)

bench-scales: $(RELEASE) $(LOAD) ## a check's cost from 10 to 100,000 policies, to a million live signals, and so on: ten minutes
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/scales.py --out $(RESULTS)/scales.json $(BENCH_ARGS)

bench-soak: $(RELEASE) $(LOAD) ## half load while signals change and the directory is reloaded, for SOAK_SECONDS (600)
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/soak.py --seconds $(SOAK_SECONDS) --out $(RESULTS)/soak.json $(BENCH_ARGS)

bench-locust: $(RELEASE) $(LOAD) ## one profile of locust: PROFILE (steady, ramp, spike, soak, churn, reloads), DOOR (grpc, http), FRONT
	@mkdir -p $(RESULTS)
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/swarm.py --profile $(PROFILE) --door $(DOOR) --front $(FRONT) \
	  --seconds $(BENCH_SECONDS) --report $(RESULTS)/locust-$(PROFILE)-$(DOOR)-$(FRONT).html $(BENCH_ARGS)

bench-load: $(LOAD) ## the two programs of bench/load alone: the load, and the floor

bench-plots: $(EXTENSION) ## draws the results that are there, and a page with all of them
	$(BIN)/python bench/plots.py $(MEASURED) --to $(RESULTS)/plots

bench-page: $(EXTENSION) ## writes the results that are there into docs/performance.md
	$(BIN)/python bench/page.py $(MEASURED)

bench-reload: $(RELEASE) ## 100 reloads of 1,000 policies under load: every answer is judged by the revision that it names
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/reload_storm.py

bench-ingest: $(RELEASE) ## how many published values a second one core takes, and how soon they change a decision: a minute
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/ingest.py

bench-identity: $(RELEASE) ## what tokens cost at first sight and after, a flood of bad ones, certificates rotated under load: two minutes
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/identity.py

bench-log-writing: $(RELEASE) ## what a record costs, and how many a second one core takes to the disk: a minute
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/log_writing.py

bench-log-reading: $(RELEASE) ## records a second: summed up, found, made again: a minute
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/log_reading.py

bench-tasks: $(RELEASE) ## grants, how soon the end of a task is felt, approvals: three minutes
	PYTHONPATH="$(CURDIR)/$(VENV)/release" $(BIN)/python bench/tasks.py

bench-rego: $(EXTENSION) | cargo ## what a decision by the same policy in Rego costs here and in OPA: half a minute (needs Go)
	cargo build --release --quiet -p signalwarden-core --example rego_cost
	$(BIN)/python bench/rego_cost.py $(BENCH_ARGS)

bench-core: | cargo ## what one check costs in the core: 10, 100 and 10,000 policies; 1,000 and 1,000,000 live signals
	cargo build --release --quiet -p signalwarden-core --example check_cost
	for policies in 10 100 10000; do target/release/examples/check_cost $$policies 1000 500 200; done
	target/release/examples/check_cost 100 1000000 500 200

fuzz: | cargo ## each fuzz target, or those of FUZZ_TARGETS, for FUZZ_SECONDS (300)
	FUZZ_MISSING_STATUS=2 rust_core/fuzz/run.sh $(FUZZ_SECONDS) 0 $(FUZZ_TARGETS)

lock: ## takes the newest releases that pyproject.toml allows into requirements.lock
	rm -rf $(VENV)/lock
	python3.11 -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check $$(python3.11 -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; o = p["optional-dependencies"]; print(*(d.replace(" ", "") for d in p["dependencies"] + o["demo"] + o["bench"] + o["dev"] if not d.startswith("signalwarden")))' | sed 's/[<>]=*[^ ]*//g')
	{ echo '# Made by `make lock` in a clean environment of Python 3.11; `make` installs exactly these.'; $(VENV)/lock/bin/python -m pip freeze; } > requirements.lock
	rm -rf $(VENV)/lock

clean: ## removes what make made
	rm -rf $(VENV) target rust_core/fuzz/target .mypy_cache .ruff_cache .pytest_cache .hypothesis dist python/signalwarden/_core*.so
	find python tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
