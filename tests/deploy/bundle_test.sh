#!/usr/bin/env bash
# An archive holds the same bytes whoever makes it, whenever and wherever, and nothing of a person or
# a machine.
set -euo pipefail
bundle="$1" compress="$2" program="$3" made="$4"
shift 4
one="$TEST_TMPDIR/one.tar" two="$TEST_TMPDIR/two.tar"
mkdir "$TEST_TMPDIR/other"
(umask 022 && "$bundle" "$one" "$program" "$@")
sleep 1.1 # of files' times, whole seconds are kept
(umask 077 && TZ=Asia/Tokyo LC_ALL=C TMPDIR="$TEST_TMPDIR/other" "$bundle" "$two" "$program" "$@")
cmp "$one" "$two"
cmp "$one" "$made"
"$compress" "$one" "$TEST_TMPDIR/one.gz"
sleep 1.1
touch "$two"
"$compress" "$two" "$TEST_TMPDIR/two.gz"
cmp "$TEST_TMPDIR/one.gz" "$TEST_TMPDIR/two.gz"

owners="$(tar -tvf "$one" --numeric-owner | awk '{print $1, $2, $4}' | sort -u)"
expected="$(printf -- '%s\n' '-rwxr-xr-x 0/0 1970-01-01' 'drwxr-xr-x 0/0 1970-01-01')"
[[ "$(grep -v '^-rw-r--r-- 0/0 1970-01-01$' <<<"$owners")" == "$expected" ]] || {
  echo "FAILED: entries are '$owners'"
  exit 1
}
tar -xf "$one" -C "$TEST_TMPDIR"
# Of who builds, whatever the environment says of it, and of where.
for path in "${HOME:-}/" "$(getent passwd "$(id -u)" | cut -d : -f 6)/" "$PWD/"; do
  [[ "$path" != / ]] || continue
  ! grep -aFl -- "$path" "$TEST_TMPDIR"/sirocco/bin/* "$TEST_TMPDIR"/sirocco/lib/* || {
    echo "FAILED: the program or a library holds '$path', of the machine it was built on"
    exit 1
  }
done
