#!/bin/sh
# Nothing is started here: there is no fleet before `curfew-server init`. A
# server that runs goes on with the new program.
set -e

case "$1" in
configure | abort-upgrade | abort-remove | abort-deconfigure)
	systemd-sysusers curfew-server.conf
	systemd-tmpfiles --create curfew-server.conf
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		case "$(systemctl is-active curfew-server.service)" in
		active | activating | reloading) # one that is about to start is of the program before, too
			deb-systemd-invoke restart curfew-server.service || echo "curfew-server: see systemctl status curfew-server" >&2
			;;
		esac
	fi
	;;
esac
