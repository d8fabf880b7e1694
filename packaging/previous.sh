#!/usr/bin/env bash
# previous.sh OUT builds the packages of the version before this one, for amd64
# and as 0.9.1, from its own source. Once there are releases, it is the last of
# them. It sets seals already: what an agent without them tells between two
# seals is a finding of the auditor's. In a clone that lacks it, this version
# stands in for it: what is replaced is then tried, and not that the two
# understand each other.
set -euo pipefail
previous=fe9526fa0d8035191f6dde3155dcbd5ddaf1e967
out=$(realpath -m "$1")
cd "$(dirname "$0")/.."

tree=.
if git cat-file -e "$previous^{commit}" 2>/dev/null; then
	tree=$(mktemp -d)
	trap 'rm -rf "$tree"' EXIT
	git archive "$previous" | tar -x -C "$tree"
else
	echo 'the previous version is not in this clone, and this one stands in for it: git fetch --unshallow gets the whole history'
fi
VERSION=0.9.1 SOURCE_DATE_EPOCH=1767225600 ARCHES=amd64 "$tree/packaging/build.sh" "$out"
