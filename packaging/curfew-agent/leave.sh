#!/bin/sh
# leave takes off this host all that was granted on it, and the wiring, so
# that the package can go: nobody keeps what nobody would take away any more.
# Whatever fails stops it, and the package stays.
set -eu

say() { echo "curfew-agent: $*" >&2; }

# Whoever removes this package under a grant ends her own session on the way,
# and the removal with it, half-way.
uid=$(cat /proc/self/loginuid 2>/dev/null || echo 4294967295)
if [ "$uid" -ge 70000 ] && [ "$uid" -le 524287 ]; then
	say "this session stands under a grant and would end before the package is removed." \
		"Remove it from another login, or put before the command: systemd-run --wait"
	exit 1
fi

# A program that was cut to nothing does nothing, and says that it did.
if [ -z "$(curfew-agent version)" ]; then
	say "the program is not whole: install the package again, and remove it then."
	exit 1
fi

if [ ! -e /etc/curfew/host.crt ] && [ ! -e /run/curfew/leave-anyway ] &&
	[ -n "$(find /run/curfew/managed /run/curfew/sudoers.d -mindepth 1 2>/dev/null)" ]; then
	say "this host does not know any more which one it is, and cannot take away what is granted on it." \
		"Reboot it, which takes that away, or have it join again, and remove the package then. All the same: touch /run/curfew/leave-anyway"
	exit 1
fi

if [ -d /run/systemd/system ]; then
	# From here on the PAM module has nobody to ask: people under a grant
	# are refused, and everybody else is let through.
	systemctl stop curfew-sweep.timer curfew-sweep.service curfew-agent.service
	if [ -e /etc/curfew/host.crt ]; then
		# To a sweep that knows of no grant, all that is there has ended.
		# It can be repeated: what is still on its way out is gone the
		# next time.
		rm -f /var/lib/curfew/grants
		tries=5
		until curfew-agent sweep || [ -e /run/curfew/leave-anyway ]; do
			tries=$((tries - 1))
			if [ "$tries" = 0 ]; then
				say "what was granted could not be taken away; the reason is above." \
					"To remove the package all the same: touch /run/curfew/leave-anyway"
				exit 1
			fi
			sleep 1
		done
	fi
	# Its recorders would outlive it.
	systemctl kill curfew-record.service 2>/dev/null || true
	systemctl stop curfew-record.service
	# The folder of homes stays for as long as somebody works in it: then the
	# package stays too, and its wiring, which comes out only after this.
	systemctl stop run-curfew-home.mount 'curfew-end-*.timer'
fi

# The lines that name the module go before the module does.
curfew-agent uninstall

if [ -d /run/systemd/system ]; then
	systemctl --quiet disable curfew-sweep.timer curfew-sweep.service curfew-agent.service curfew-join.service
	# Of a unit that is masked, it leaves them.
	rm -f /etc/systemd/system/*.wants/curfew-sweep.timer /etc/systemd/system/*.wants/curfew-sweep.service \
		/etc/systemd/system/*.wants/curfew-agent.service /etc/systemd/system/*.wants/curfew-join.service
fi
rm -rf --one-file-system /sys/fs/bpf/curfew
