#!/bin/sh
# rpm knows no purge: /etc/curfew and /var/lib/curfew are the administrator's to
# remove. $1 counts the versions that stay.
if [ "$1" -eq 0 ]; then
	rm -rf --one-file-system /run/curfew
	rmdir --ignore-fail-on-non-empty /run/userdb 2>/dev/null || :
	[ ! -d /run/systemd/system ] || systemctl daemon-reload || :
fi
