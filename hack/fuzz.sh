#!/bin/bash
# Runs every fuzz target of the module, one after the other.
# Usage: hack/fuzz.sh FUZZTIME (of which no input's minimisation may take more than a second)
set -euo pipefail

time=${1:?"usage: hack/fuzz.sh FUZZTIME"}
cd "$(dirname "$0")/.."
failed=()
count=0
packages=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...)
for package in $packages; do
	listed=$(go test -list '^Fuzz' "$package") || { echo "$listed"; exit 1; }
	for target in $(grep '^Fuzz' <<<"$listed" || true); do
		echo "== $package $target"
		count=$((count + 1))
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s "$package" || failed+=("$package.$target")
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	printf 'FAIL: %s\n' "${failed[@]}"
	exit 1
fi
echo "$count fuzz targets, $time each: nothing found"
[ "$count" -gt 0 ] # with none, nothing was fuzzed
