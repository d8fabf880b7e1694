#!/bin/sh
# Nothing is wired and nothing started here: that is `curfew-agent install` and
# `curfew-agent join`. What runs already goes on with the new program.
set -e

case "$1" in
configure | abort-upgrade | abort-remove | abort-deconfigure)
	rm -rf /usr/libexec/curfew-agent/before
	systemd-tmpfiles --create curfew-agent.conf
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		# Sessions and grants live on without the agent; people under a
		# grant are refused new logins until it is ready again.
		for unit in curfew-record.service curfew-agent.service curfew-sweep.timer; do
			case "$(systemctl is-active "$unit")" in
			active | activating | reloading) ;; # one that is about to start is of the program before, too
			*)
				if [ "$1" != abort-remove ] || ! systemctl --quiet is-enabled "$unit"; then
					continue
				fi
				;;
			esac
			deb-systemd-invoke restart "$unit" || echo "curfew-agent: see systemctl status $unit" >&2
		done
	fi
	;;
esac
