#!/usr/bin/env bash
# build.sh OUT builds the packages into OUT. The same commit gives the same
# bytes, wherever and whenever: no file's time, no host's name, no path goes
# into them. VERSION and SOURCE_DATE_EPOCH may be given.
set -euo pipefail
umask 022
out=$(realpath -m "$1")
cd "$(dirname "$0")/.."

VERSION=${VERSION:-$(packaging/version.sh)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export VERSION SOURCE_DATE_EPOCH
export TZ=UTC LC_ALL=C GOFLAGS='-trimpath -buildvcs=false'
day=$(date -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tool() { go tool -modfile=tools/go.mod "$@"; }

section() { if [ "$1" = curfew ]; then echo 1; else echo 8; fi; }

# papers PROGRAM FOLDER: what goes beside a program, of whatever architecture.
papers() {
	local n shell
	n=$(section "$1")
	go run -ldflags "-X main.Version=$VERSION" "./cmd/$1" man "$n" "Curfew $VERSION" "$day" | gzip -9n >"$2/$1.$n.gz"
	{
		printf '%s (%s) unstable; urgency=medium\n\n  * As of %s; the history of the source says what changed.\n\n' "$1" "$VERSION" "$day"
		printf ' -- The Curfew authors <curfew@curfew.internal>  %s\n' "$(date -R -d "@$SOURCE_DATE_EPOCH")"
	} | gzip -9n >"$2/changelog.gz"
	for shell in bash zsh fish; do
		go run "./cmd/$1" completion "$shell" --program "/usr/bin/$1" >"$2/completion.$shell"
	done
}

# bill PROGRAM FOLDER: its bill of materials, as Go wrote it into the program.
bill() {
	tool cyclonedx-gomod bin -json -noserial -std -version "$VERSION" "$2/$1" |
		sed -E "s|^(    \"timestamp\": \").*(\",)|\1$(date -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)\2|" >"$2/sbom.cdx.json"
}

# libpam FOLDER: what a compiler for another machine needs of libpam to link the
# module, made from this machine's: the headers and the names with their versions
# are the same on every machine. It is not shipped, and holds no code.
libpam() {
	mkdir -p "$1/include"
	cp -r /usr/include/security "$1/include"
	objdump -T "$(cc -print-file-name=libpam.so.0)" |
		awk '$4 == ".text" && $6 ~ /^LIBPAM_/ { print $6, $7 }' | sort >"$1/names"
	awk '{ print "void " $2 "(void) {}" }' "$1/names" >"$1/libpam.c"
	awk '$1 != v { if (v) print "};"; print $1 " {"; v = $1 } { print $2 ";" } END { print "};" }' "$1/names" >"$1/libpam.map"
	aarch64-linux-gnu-gcc -fno-builtin -shared -nostdlib -Wl,-soname,libpam.so.0 -Wl,--version-script="$1/libpam.map" -o "$1/libpam.so" "$1/libpam.c"
}

# module FOLDER ARCHITECTURE: the PAM module, and pam-try.
module() {
	local machine=x86_64-linux-gnu cc=cc
	if [ "$2" = arm64 ]; then
		machine=aarch64-linux-gnu
		[ -e "$work/libpam" ] || libpam "$work/libpam"
		cc="aarch64-linux-gnu-gcc -isystem $work/libpam/include -L$work/libpam"
	fi
	CC=$cc pammod/build.sh "$1/pam_curfew.so"
	"$machine-strip" --strip-unneeded --remove-section=.comment "$1/pam_curfew.so" "$1/pam-try"
	# The version of libc that they ask for.
	LIBC=$("$machine-objdump" -T "$1/pam_curfew.so" "$1/pam-try" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 | cut -d_ -f2)
	MACHINE=$machine
	export LIBC MACHINE
}

package() { # package PROGRAM ARCHITECTURE
	export ARCH=$2 STAGE=$work/$2/$1
	mkdir -p "$STAGE"
	CGO_ENABLED=0 GOOS=linux GOARCH=$2 go build -ldflags "-s -w -X main.Version=$VERSION" -o "$STAGE/$1" "./cmd/$1"
	cp "$work/papers/$1"/* "$STAGE"
	bill "$1" "$STAGE"
	packaging/licences.sh "$STAGE/$1" | gzip -9n >"$STAGE/modules.licences.gz"
	if [ "$1" = curfew-agent ]; then
		for part in curfew-record curfew-shell; do
			CGO_ENABLED=0 GOOS=linux GOARCH=$2 go build -ldflags "-s -w -X main.Version=$VERSION" -o "$STAGE/$part" "./cmd/$part"
		done
		module "$STAGE" "$2"
	fi
	find "$STAGE" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
	# RPMs know which files are documentation; of debs, nfpm would leave them out.
	sed -E 's#^    dst: /usr/share/(doc|man)/.*#&\n    type: doc#' "packaging/$1/nfpm.yaml" >"$STAGE.rpm.yaml"
	tool nfpm package --config "packaging/$1/nfpm.yaml" --packager deb --target "$work/out" >/dev/null
	tool nfpm package --config "$STAGE.rpm.yaml" --packager rpm --target "$work/out" >/dev/null
}

mkdir -p "$work/out"
for program in curfew curfew-agent curfew-server; do
	mkdir -p "$work/papers/$program"
	papers "$program" "$work/papers/$program"
	for arch in ${ARCHES:-amd64 arm64}; do
		package "$program" "$arch"
	done
done
mkdir -p "$out"
rm -f "$out"/*.deb "$out"/*.rpm "$out"/SHA256SUMS
mv "$work"/out/* "$out"
(cd "$out" && sha256sum -- *.deb *.rpm >SHA256SUMS && ls -l)
