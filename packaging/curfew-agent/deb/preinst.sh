#!/bin/sh
# A version that is unpacked, and not configured yet, is taken away without its
# prerm. What is there now stays at hand, so that postrm can have it leave. Of a
# first one nothing is: as long as the folder is there, it can't be wired.
set -e

before=/usr/libexec/curfew-agent/before
mkdir -p "$before"
if [ -e /usr/libexec/curfew-agent/leave ]; then
	for file in /usr/bin/curfew-agent /usr/libexec/curfew-agent/leave; do
		ln -f "$file" "$before/" 2>/dev/null || cp -p "$file" "$before/"
	done
fi
