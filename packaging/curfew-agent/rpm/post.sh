#!/bin/sh
# Nothing is wired and nothing started here: that is `curfew-agent install` and
# `curfew-agent join`. $1 counts the versions that are installed now.
systemd-tmpfiles --create curfew-agent.conf || :
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if [ "$1" -ge 2 ]; then
		systemctl try-restart curfew-record.service curfew-agent.service curfew-sweep.timer || :
	fi
fi
