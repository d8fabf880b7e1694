#!/bin/sh
# Builds the PAM module: pammod/build.sh OUT.so
set -eu
out=$1
dir=$(dirname "$0")
mkdir -p "$(dirname "$out")"
${CC:-cc} -std=c11 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror \
	-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fPIC -fvisibility=hidden -ffile-prefix-map="$dir"=pammod \
	-shared -Wl,-z,relro,-z,now,-z,noexecstack,-z,defs -o "$out" "$dir/pam_curfew.c" -lpam
