#!/usr/bin/env bash
# version.sh prints the version of the packages that this tree makes: the last
# tag v1.2.3, what came after it, and whether the tree was changed. Before the
# first tag it is older than any: ~ sorts before the end (deb-version(7)).
set -euo pipefail
cd "$(dirname "$0")/.."

hash=$(git rev-parse --short=10 HEAD)
if tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
	version=${tag#v}
	version=${version//-/\~} # v1.2.0-rc1 comes before v1.2.0
	after=$(git rev-list --count "$tag..HEAD")
	[ "$after" = 0 ] || version+=+$after.$hash
else
	version=0.0.0~git$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d%H%M%S).$hash
fi
[ -z "$(git status --porcelain --untracked-files=no)" ] || version+=+changed
echo "$version"
