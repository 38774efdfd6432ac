#!/usr/bin/env bash
# Builds h2spec, at the version that go.mod here names, into the directory that the first argument names; does nothing if
# it is there already. Ends with 3, after one line, where it can't be built.
set -euo pipefail
into="$(mkdir -p "$1" && cd "$1" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")"
# Ten minutes: far more than its few small modules need.
LIMIT_SECONDS=600

cannot() {
  echo "tests/h2spec are left out: $1"
  exit 3
}

if cmp -s go.mod "$into/go.mod" && [ -x "$into/h2spec" ]; then exit 0; fi

# Go's own toolchain only: a test run is no reason to download another one.
export GOTOOLCHAIN=local GOFLAGS=-mod=readonly GOBIN="$into" CGO_ENABLED=0
command -v go >/dev/null || cannot "there is no Go toolchain here (go on PATH)"
needs="$(awk '$1 == "go" { print $2 }' go.mod)"
has="$(cd / && go env GOVERSION)"
[ "$(printf '%s\n' "$needs" "${has#go}" | sort -V | head -n 1)" = "$needs" ] || cannot "they need Go $needs or newer, and here is $has"

echo "building h2spec $(awk '$1 == "github.com/summerwind/h2spec" { print $2 }' go.mod) from its Go module"
rm -f "$into/go.mod"
limit=()
if command -v timeout >/dev/null; then limit=(timeout "$LIMIT_SECONDS"); fi
${limit[@]+"${limit[@]}"} go install -ldflags "-s -w" tool
cp go.mod "$into/go.mod"
