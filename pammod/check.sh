#!/bin/sh
# Compilers, analysers, sanitizers and a short fuzz run over the PAM module;
# any finding is an error.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
warn="-std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"

CC=gcc ./build.sh "$tmp/gcc.so"
CC=clang-16 ./build.sh "$tmp/clang.so"
# shellcheck disable=SC2086
gcc -fanalyzer $warn -O1 -c -o "$tmp/a.o" pam_curfew.c
# shellcheck disable=SC2086
gcc -fanalyzer $warn -O1 -c -o "$tmp/a.o" pam_try.c
# shellcheck disable=SC2086
clang-16 --analyze -Xanalyzer -analyzer-werror $warn -o "$tmp/plist" pam_curfew.c
# shellcheck disable=SC2086
clang-16 --analyze -Xanalyzer -analyzer-werror $warn -o "$tmp/plist" pam_try.c
# shellcheck disable=SC2086
clang-16 $warn -g -fsanitize=address,undefined -fno-sanitize-recover -o "$tmp/test" test_door.c
"$tmp/test" ../wire/door/testdata
# The tests that run the whole module play libpam: its symbols are theirs.
# shellcheck disable=SC2086
clang-16 $warn -g -fsanitize=address,undefined -fno-sanitize-recover -o "$tmp/pam" test_pam.c
"$tmp/pam"
if command -v clang-tidy-16 >/dev/null; then
	clang-tidy-16 --quiet --warnings-as-errors='*' \
		--checks='-*,bugprone-*,cert-*,clang-analyzer-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-cert-dcl37-c,-cert-dcl51-cpp,-bugprone-assignment-in-if-condition,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling' \
		pam_curfew.c pam_try.c -- -std=c11 -D_GNU_SOURCE >"$tmp/log" 2>&1 || {
		cat "$tmp/log"
		exit 1
	}
fi
if command -v cppcheck >/dev/null; then
	cppcheck --quiet --std=c11 --enable=warning,portability,performance --error-exitcode=1 \
		--inline-suppr --suppress=missingIncludeSystem pam_curfew.c pam_try.c
fi
# shellcheck disable=SC2086
clang-16 $warn -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover -o "$tmp/fuzz" fuzz_reply.c
"$tmp/fuzz" -max_total_time=10 -max_len=512 -artifact_prefix="$tmp/" "$tmp" >"$tmp/log" 2>&1 || {
	cat "$tmp/log"
	exit 1
}
if nm -D "$tmp/gcc.so" | grep -Ew 'malloc|calloc|realloc|pthread_create|sigaction|signal|strcpy|sprintf|alloca'; then
	echo "pam_curfew.so uses what the house style forbids" >&2
	exit 1
fi
lines=$(cat pam_curfew.c door.h | wc -l)
[ "$lines" -le 500 ] || {
	echo "the PAM module has $lines lines; 500 are allowed" >&2
	exit 1
}
echo "pammod: clean"
