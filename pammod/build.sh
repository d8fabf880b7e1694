#!/bin/sh
# Builds the PAM module, and pam-try beside it: pammod/build.sh OUT.so
set -eu
out=$1
dir=$(dirname "$0")
mkdir -p "$(dirname "$out")"
compile() {
	${CC:-cc} -std=c11 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror \
		-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fvisibility=hidden -ffile-prefix-map="$dir"=pammod \
		-Wl,-z,relro,-z,now,-z,noexecstack,-z,defs "$@" -lpam
}
compile -fPIC -shared -o "$out" "$dir/pam_curfew.c"
compile -fPIE -pie -o "$(dirname "$out")/pam-try" "$dir/pam_try.c"
