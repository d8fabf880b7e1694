#!/bin/sh
# $1 counts the versions that stay.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
	systemctl --quiet --now disable curfew-server.service || :
fi
