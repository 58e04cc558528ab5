#!/usr/bin/env bash
# Each promise of tests/PROMISES.md names tests that exist, and the check finds what does not.
# usage: promises_test.sh PAGE      (the page lies among the sources, or is a link to there)
set -euo pipefail
page="$(readlink -f "$1")"
cd "$(dirname "$page")/.."

# check PAGE: a line for everything that is named and is not there.
check() {
  local row file token
  while IFS= read -r row; do
    file=""
    while IFS= read -r token; do
      if [[ "$token" == tests/* ]]; then
        file="$token"
        [[ -e "$file" ]] || echo "no file $file"
      elif [[ -z "$file" ]]; then
        echo "$token is named without a file"
      elif [[ -e "$file" ]] && ! grep -qFw -- "$token" "$file"; then
        echo "no $token in $file"
      fi
    done < <(sed 's/^|.*| *\(`tests.*\) |$/\1/' <<<"$row" | grep -o '`[^`]*`' | tr -d '`')
    [[ -n "$file" ]] || echo "no test: $row"
  done < <(grep '^| ' "$1" | grep -v '^| promise ')
}

missing="$(check "$page")"
[[ -z "$missing" ]] || {
  echo "$missing"
  exit 1
}
rows="$(grep -c '^| ' "$page")"
((rows > 20)) || {
  echo "FAILED: only $rows rows were looked at"
  exit 1
}

printf '| a | `tests/e2e/nothing.py` `test_x` |\n| b | `%s` `TestNotThere` |\n| c | none |\n' "${page#"$PWD/"}" \
  >"$TEST_TMPDIR/page"
[[ "$(check "$TEST_TMPDIR/page" | wc -l)" == 3 ]] || {
  echo "FAILED: of three faults the check found: $(check "$TEST_TMPDIR/page")"
  exit 1
}
