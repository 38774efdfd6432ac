#!/bin/sh
# Runs each fuzz target for so many seconds over its committed corpus: rust_core/fuzz/run.sh SECONDS
# Without nightly or cargo-fuzz it says so and ends with FUZZ_MISSING_STATUS (0: the rest of `make test` goes on).
set -eu
seconds=${1:?usage: rust_core/fuzz/run.sh SECONDS}
cd "$(dirname "$0")"
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs the nightly Rust toolchain: rustup toolchain install nightly" >&2
    exit "${FUZZ_MISSING_STATUS:-0}"
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzzing needs cargo-fuzz: cargo install cargo-fuzz" >&2
    exit "${FUZZ_MISSING_STATUS:-0}"
fi
# No address sanitizer: nothing here is unsafe, and building it for every dependency takes three times as long.
for target in wire_decode opa_envoy register ingest mcp certificate xfcc replay rego; do
    # What a run finds goes to a scratch corpus; the committed one only seeds it.
    mkdir -p "target/corpus/$target"
    cargo +nightly fuzz run --sanitizer none --fuzz-dir . "$target" "target/corpus/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1
done
