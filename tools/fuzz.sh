#!/usr/bin/env bash
# fuzz.sh TIME runs every Go fuzz test for that long (10s, 5m).
set -euo pipefail
cd "$(dirname "$0")/.."

time=$1
git grep -lE '^func Fuzz[A-Z]' -- '*_test.go' | while read -r file; do
	sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$file" | while read -r name; do
		echo "$(dirname "$file"): $name"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")" </dev/null
	done
done
