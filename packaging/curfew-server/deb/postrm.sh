#!/bin/sh
# A purge takes the fleet with it: its keys, its record, and the user that
# they belong to.
set -e

if [ -d /run/systemd/system ] && [ "$1" = remove ]; then
	# It runs on if what was unpacked was not configured: prerm was not asked.
	systemctl stop curfew-server.service 2>/dev/null || true
	rm -f /etc/systemd/system/multi-user.target.wants/curfew-server.service
	systemctl daemon-reload
fi
if [ "$1" = purge ]; then
	rm -rf --one-file-system /etc/curfew-server /etc/curfew-server-secrets /var/lib/curfew-server
	if getent passwd curfew-server >/dev/null; then
		userdel curfew-server
	fi
fi
