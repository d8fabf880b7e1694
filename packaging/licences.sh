#!/usr/bin/env bash
# licences.sh PROGRAM... prints the licences of the Go modules that are in the
# programs: most of them ask to be handed on with what was made of the module.
set -euo pipefail
cd "$(dirname "$0")/.."

modules=$(go version -m "$@" | awk '$1 == "dep" { print $2 "@" $3 }' | sort -u)
for module in $modules; do
	dir=$(go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
	found=
	for file in "$dir"/{LICENSE,LICENCE,COPYING,NOTICE,PATENTS}*; do
		[ -f "$file" ] || continue
		[ "${file##*/}" = PATENTS ] || found=1
		printf '=== %s: %s\n\n' "$module" "${file##*/}"
		cat "$file"
		echo
	done
	[ -n "$found" ] || { echo "$module comes without a licence" >&2; exit 1; }
done
