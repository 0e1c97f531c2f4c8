#!/bin/sh
# deploy/backup.sh CATALOG TARGET
#
# Copies a complete catalogue while builds and conversions are running. A second run copies only what is new.
# Restore: the same with the arguments swapped, into a new folder; then `tessera-stac validate`.
set -eu
if [ $# -ne 2 ] || [ ! -L "${1%/}/.current" ]; then
  echo "usage: backup.sh CATALOG TARGET; CATALOG is a folder that tessera-stac build made" >&2
  exit 2
fi
catalog=${1%/} target=${2%/}
mkdir -p "$target/.versions"

# A published version never changes. Hard links hold it while it is copied, whatever builds do meanwhile.
held=$(mktemp -d "$catalog/.backup-XXXXXX")
trap 'rm -rf "$held"' EXIT
version=$(readlink "$catalog/.current")
cp -al "$catalog/$version" "$held/"
new=$held/${version##*/}/index.sqlite old=$target/$version/index.sqlite
if [ ! -f "$old" ] || [ "$new" -nt "$old" ] || [ "$new" -ot "$old" ]; then
  rm -rf "${target:?}/$version.copying" "${target:?}/$version"
  cp -a "$held/${version##*/}" "$target/$version.copying"
  mv "$target/$version.copying" "$target/$version"
fi

# The ledger before the files that it lists: a conversion writes them the other way round.
if [ -d "$catalog/cogs" ]; then
  mkdir -p "$target/cogs"
  if [ -d "$catalog/cogs/ledger" ]; then cp -au "$catalog/cogs/ledger" "$target/cogs/"; fi
  cp -au "$catalog/cogs/." "$target/cogs/"
fi

# As tessera-stac build does: the links of what is new, then the one that decides, then what is left over.
for name in $(ls "$target/$version"); do ln -sfn ".current/$name" "$target/$name"; done
ln -s "$version" "$target/.current.new" && mv -T "$target/.current.new" "$target/.current"
for old in "$target"/.versions/*; do
  if [ "$old" != "$target/$version" ]; then rm -rf "$old"; fi
done
echo "$target: $version"
