#!/bin/sh
# A version that is unpacked, and not configured yet, is taken away without its
# prerm. What is there now stays at hand, so that postrm can have it leave.
set -e

before=/usr/libexec/curfew-agent/before
if [ -e /usr/libexec/curfew-agent/leave ]; then
	mkdir -p "$before"
	for file in /usr/bin/curfew-agent /usr/libexec/curfew-agent/leave; do
		ln -f "$file" "$before/" 2>/dev/null || cp -p "$file" "$before/"
	done
fi
