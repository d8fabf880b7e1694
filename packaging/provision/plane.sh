#!/bin/sh
# plane.sh DIST NAME TOKENS makes this machine the control plane of a new fleet
# from the packages in the folder DIST. People and hosts reach it under NAME. The
# first admin's code goes into the folder TOKENS, with one token for each host
# named after it, as db1:tier=db. It can be repeated: a fleet that exists is kept.
set -eu
dist=$1 name=$2 tokens=$3
shift 3

export DEBIAN_FRONTEND=noninteractive
apt-get install -qq -y "$dist"/curfew-server_*_"$(dpkg --print-architecture)".deb >/dev/null
umask 077
mkdir -p "$tokens"
server() { runuser -u curfew-server -- curfew-server "$@"; }
if [ ! -e /etc/curfew-server/server.yaml ]; then
	server init --fleet example --url "https://$name:7443" --admin cleo >"$tokens/cleo" 2>/dev/null
fi
systemctl enable --quiet --now curfew-server
for host; do
	# A host that has joined keeps its place.
	[ -e "$tokens/${host%%:*}.used" ] || server join-token --host "${host%%:*}" --label "${host#*:}" >"$tokens/${host%%:*}" 2>/dev/null
done
