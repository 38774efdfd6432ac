#!/usr/bin/env bash
# Writes OPA's conformance cases, of the release that go.mod here names, into the file that the first argument names; does
# nothing if it is there already. Ends with 3, after one line, where they can't be had.
set -euo pipefail
into="$(mkdir -p "$(dirname "$1")" && cd "$(dirname "$1")" && pwd)/$(basename "$1")"
cd "$(dirname "${BASH_SOURCE[0]}")"
# Ten minutes: far more than fetching one module and building a small program takes.
LIMIT_SECONDS=600

cannot() {
  echo "the Rego conformance cases are left out: $1"
  exit 3
}

if cmp -s go.mod "$into.mod" && cmp -s main.go "$into.main" && [ -s "$into" ]; then exit 0; fi

# Go's own toolchain only: a test run is no reason to download another one.
export GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0
command -v go >/dev/null || cannot "there is no Go toolchain here (go on PATH)"
needs="$(awk '$1 == "go" { print $2 }' go.mod)"
has="$(cd / && go env GOVERSION)"
[ "$(printf '%s\n' "$needs" "${has#go}" | sort -V | head -n 1)" = "$needs" ] || cannot "they need Go $needs or newer, and here is $has"

rm -f "$into" "$into.mod" "$into.main"
limit=()
if command -v timeout >/dev/null; then limit=(timeout "$LIMIT_SECONDS"); fi
${limit[@]+"${limit[@]}"} go mod download github.com/open-policy-agent/opa || cannot "Go can't fetch the module of OPA"
suite="$(go list -m -f '{{.Dir}}' github.com/open-policy-agent/opa)/v1/test/cases/testdata"
${limit[@]+"${limit[@]}"} go run . "$suite" >"$into.new"
mv "$into.new" "$into"
cp go.mod "$into.mod"
cp main.go "$into.main"
