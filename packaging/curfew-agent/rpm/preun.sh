#!/bin/sh
# If it fails, rpm keeps the package. $1 counts the versions that stay.
set -e

if [ "$1" -eq 0 ]; then
	/usr/libexec/curfew-agent/leave
fi
