#!/bin/sh
# An upgrade leaves the agent running: dpkg puts each file in place whole, by a
# rename, and the new postinst starts the agent anew.
set -e

if [ "$1" = remove ]; then
	/usr/libexec/curfew-agent/leave
fi
