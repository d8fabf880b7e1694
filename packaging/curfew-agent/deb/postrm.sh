#!/bin/sh
# What a removal keeps is the host's membership of its fleet; a purge forgets it.
set -e

before=/usr/libexec/curfew-agent/before
case "$1" in
remove)
	if [ -e "$before/leave" ]; then
		# What was unpacked was not configured, and prerm not asked.
		PATH=$before:$PATH "$before/leave"
	fi
	rm -rf /usr/libexec/curfew-agent
	rm -rf --one-file-system /run/curfew
	rmdir --ignore-fail-on-non-empty /run/userdb 2>/dev/null || true
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
	;;
abort-install | abort-upgrade)
	rm -rf "$before"
	rmdir --ignore-fail-on-non-empty /usr/libexec/curfew-agent 2>/dev/null || true
	;;
purge)
	rm -rf --one-file-system /run/curfew /etc/curfew /var/lib/curfew
	;;
esac
