#!/usr/bin/env bash
# Builds spire-server and spire-agent, at the version that go.mod here names, into the directory that the first
# argument names; does nothing if they are there already. Ends with 3, after one line, where they can't be built.
set -euo pipefail
into="$(mkdir -p "$1" && cd "$1" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")"
# An hour: ten times what two cores need.
LIMIT_SECONDS=3600

cannot() {
  echo "tests/spire are left out: $1"
  exit 3
}

if cmp -s go.mod "$into/go.mod" && [ -x "$into/spire-server" ] && [ -x "$into/spire-agent" ]; then exit 0; fi

# Go's own toolchain only: a test run is no reason to download another one.
export GOTOOLCHAIN=local GOFLAGS=-mod=readonly GOBIN="$into" CGO_ENABLED=1
command -v go >/dev/null || cannot "there is no Go toolchain here (go on PATH)"
needs="$(awk '$1 == "go" { print $2 }' go.mod)"
has="$(cd / && go env GOVERSION)"
[ "$(printf '%s\n' "$needs" "${has#go}" | sort -V | head -n 1)" = "$needs" ] || cannot "they need Go $needs or newer, and here is $has"
command -v "$(go env CC | awk '{ print $1 }')" >/dev/null || cannot "there is no C compiler here, and SPIRE's SQLite needs one"

echo "building SPIRE $(awk '$1 == "github.com/spiffe/spire" { print $2 }' go.mod) from its Go module (1.5 GB of modules and about ten minutes on two cores, once)"
rm -f "$into/go.mod"
limit=()
if command -v timeout >/dev/null; then limit=(timeout "$LIMIT_SECONDS"); fi
${limit[@]+"${limit[@]}"} go install -ldflags "-s -w" tool
cp go.mod "$into/go.mod"
