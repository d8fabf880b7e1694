#!/bin/sh
# Nothing is started here: there is no fleet before `curfew-server init`. $1
# counts the versions that are installed now.
systemd-sysusers curfew-server.conf || :
systemd-tmpfiles --create curfew-server.conf || :
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if [ "$1" -ge 2 ]; then
		systemctl try-restart curfew-server.service || :
	fi
fi
