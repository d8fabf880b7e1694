#!/bin/sh
# What a removal keeps is the host's membership of its fleet; a purge forgets it.
set -e

case "$1" in
remove)
	rm -rf --one-file-system /run/curfew
	rmdir --ignore-fail-on-non-empty /run/userdb 2>/dev/null || true
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
	;;
purge)
	rm -rf --one-file-system /run/curfew /etc/curfew /var/lib/curfew
	;;
esac
