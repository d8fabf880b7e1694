#!/usr/bin/env bash
# build.sh builds the tools that go.mod pins, once for each version of it, and
# prints the folder that they are in. It lies outside the repository, so that
# a clean clone finds them again.
set -euo pipefail
cd "$(dirname "$0")"

key=$(cat go.mod go.sum | sha256sum | cut -c1-16)
bin=${XDG_CACHE_HOME:-$HOME/.cache}/curfew/bin/$key
if [ ! -e "$bin/.built" ]; then
	echo "building the tools (two minutes, once)" >&2
	mkdir -p "$bin"
	GOBIN=$bin go install tool
	touch "$bin/.built"
fi
echo "$bin"
