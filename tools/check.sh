#!/usr/bin/env bash
# check.sh runs everything that reads the tree without running it. Each check
# says what it found; all of them are run before the script gives its verdict.
#
# shellcheck disable=SC2317 # functions are called by name
set -uo pipefail
cd "$(dirname "$0")/.." || exit

PATH=$(tools/build.sh):$PATH
export PATH
bad=0

show() { [ -z "$1" ] || printf '      %s\n' "${1//$'\n'/$'\n      '}"; }

check() { # check NAME COMMAND...: the command has to succeed and to be silent
	local name=$1 said
	shift
	if said=$("$@" 2>&1) && [ -z "$said" ]; then
		echo "ok    $name"
		return
	fi
	echo "FAIL  $name"
	show "$said"
	bad=1
}

loud() { # loud NAME COMMAND...: the command has to succeed, and may talk
	local name=$1 said
	shift
	if said=$("$@" 2>&1); then
		echo "ok    $name"
		return
	fi
	echo "FAIL  $name"
	show "$said"
	bad=1
}

files() { git ls-files -co --exclude-standard -- "$@"; }

go_files() { files '*.go' | grep -vE '(\.pb|\.connect|_bpfel)\.go$'; }

c_files() { files 'bpf/*.c' 'bpf/*.h' 'pammod/*.c' 'pammod/*.h' | grep -v vmlinux.h; }

lint_tools() { (cd tools && golangci-lint run ./...); }

formatted_go() { go_files | xargs -r gofumpt -l; }

formatted_c() { c_files | xargs -r clang-format-16 --dry-run --Werror; }

# The flags are those that the objects are built with, and every warning.
bpf_warnings() {
	local f
	while read -r f; do
		clang-16 -target bpf -D__TARGET_ARCH_x86 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter \
			-I/usr/include/x86_64-linux-gnu -Ibpf -c "$f" -o /dev/null || return 1
	done < <(files 'bpf/*.c')
}

shell_files() { files '*.sh' .ci/run; }

syntax() {
	local f
	while read -r f; do bash -n "$f" || return 1; done < <(shell_files)
}

shells() { shell_files | xargs -r shellcheck --severity=warning; }

selinux() {
	local dir rc
	dir=$(mktemp -d)
	checkmodule -M -m -o "$dir/curfew.mod" packaging/selinux/curfew.te
	rc=$?
	rm -rf "$dir"
	return $rc
}

role() { (cd packaging/ansible && ansible-lint --offline --nocolor); }

small_files() {
	git ls-files -z | xargs -0 stat -c '%s %n' | awk '$1 > 1000000 { print $2 " has " $1 " bytes"; found = 1 } END { exit found }'
}

loud 'golangci-lint' golangci-lint run ./...
loud 'golangci-lint, tools' lint_tools
check 'gofumpt' formatted_go
check 'clang-format' formatted_c
check 'BPF compiles without a warning' bpf_warnings
[ ! -x pammod/check.sh ] || loud 'pammod/check.sh' pammod/check.sh
check 'shell syntax' syntax
check 'shellcheck' shells
check 'units' tools/units.sh
loud 'rooms, levers, links in the docs' go test ./test/arch
check 'the SELinux module compiles' selinux
loud 'ansible-lint' role
check 'no large files' small_files
exit $bad
