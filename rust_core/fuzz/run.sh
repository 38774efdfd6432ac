#!/bin/sh
# Fuzzes each target over its committed corpus: rust_core/fuzz/run.sh SECONDS [RUNS [TARGET...]]
# With RUNS it ends after so many inputs, drawn from FUZZ_SEED: what judges a change does not hang on luck. RUNS 0: no end but
# the time, and new inputs each time.
# Without nightly or cargo-fuzz it says so and ends with FUZZ_MISSING_STATUS (0: the rest of `make test` goes on).
set -eu
seconds=${1:?usage: rust_core/fuzz/run.sh SECONDS [RUNS [TARGET...]]}
runs=${2:-0}
shift "$(($# < 2 ? $# : 2))"
cd "$(dirname "$0")"
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing needs the nightly Rust toolchain: rustup toolchain install nightly" >&2
    exit "${FUZZ_MISSING_STATUS:-0}"
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzzing needs cargo-fuzz: cargo install cargo-fuzz" >&2
    exit "${FUZZ_MISSING_STATUS:-0}"
fi
scratch=target/corpus
bound=
if [ "$runs" -gt 0 ]; then
    # What earlier runs found would change what is drawn.
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    # Without a line for each input that is kept: what failed should not have to be looked for.
    bound="-runs=$runs -seed=${FUZZ_SEED:-20261124} -verbosity=0"
fi
[ "$#" -gt 0 ] || set -- wire_decode opa_envoy grpc_body register directory ingest mcp certificate xfcc replay rego
# No address sanitizer: nothing here is unsafe, and building it for every dependency takes three times as long.
for target in "$@"; do
    # What a run finds goes to a scratch corpus; the committed one only seeds it.
    mkdir -p "$scratch/$target"
    echo "fuzz: $target"
    # shellcheck disable=SC2086 # some arguments, or none
    cargo +nightly fuzz run --sanitizer none --fuzz-dir . "$target" "$scratch/$target" "corpus/$target" -- \
        -max_total_time="$seconds" $bound -rss_limit_mb=2048 -timeout=10 -print_final_stats=1
done
