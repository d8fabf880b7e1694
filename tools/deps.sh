#!/usr/bin/env bash
# deps.sh GROUP... installs the Debian packages of the groups (packages.txt)
# that are missing, and no more. With none missing it needs neither root nor a
# network. While packages are installed, none of their services is started.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
for group in "$@"; do
	while read -r when name _; do
		[ "$when" = "$group" ] || continue
		status=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || echo none)
		[ "$status" = installed ] || missing+=("$name")
	done <packages.txt
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing ${missing[*]}"
if [ "$(id -u)" != 0 ]; then
	echo "that needs root: run 'make deps' as root once" >&2
	exit 1
fi

# Debian asks this file before it starts a service (invoke-rc.d(8)). One that
# the machine has already is left as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
