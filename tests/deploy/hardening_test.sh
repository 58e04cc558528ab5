#!/usr/bin/env bash
# What the bundle holds of ours is hardened; and the check finds what is not.
set -euo pipefail
check="$1" bundle="$2"
cd "$TEST_TMPDIR"
check="$OLDPWD/$check"
tar -xf "$OLDPWD/$bundle"

ours=(sirocco/bin/sirocco)
for plugin in sirocco/lib/libsirocco_*.so; do
  [[ ! -e "$plugin" ]] || ours+=("$plugin")
done
"$check" "${ours[@]}" || {
  echo "FAILED: what is built is not hardened"
  exit 1
}
echo "hardened: ${ours[*]}"
# What makes calls fail in tests (tests/faults) is in none of it.
! grep -l SIROCCO_FAULTS "${ours[@]}" || {
  echo "FAILED: it has a part of the tests in it"
  exit 1
}

# Each thing turned off is found, and nothing else.
cat >probe.cc <<'CC'
#include <cstdio>
#include <cstring>
int main(int argc, char** argv) {
  char text[16];
  std::strcpy(text, argv[argc - 1]);
  std::printf("%s\n", text);
}
CC
good=(-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=1 -fstack-protector-strong -fPIE -pie -Wl,-z,relro,-z,now)
failed=0
# finds WHAT FLAG...: with these flags exactly that is missing; "" nothing.
finds() {
  local what="$1" said
  shift
  g++ "${good[@]}" "$@" probe.cc -o probe 2>/dev/null
  said="$("$check" probe || true)"
  [[ -n "$what" && "$said" == "probe: "*"$what"* && "$(wc -l <<<"$said")" == 1 ]] ||
    [[ -z "$what" && -z "$said" ]] || {
    echo "FAILED: with '$*' the check says '$said', not '$what'"
    failed=1
  }
}
finds ""
finds "not position-independent" -fno-PIE -no-pie
finds "RELRO" -Wl,-z,norelro
finds "NOW" -Wl,-z,lazy
finds "executable stack" -Wl,-z,execstack
finds "stack protector" -fno-stack-protector
finds "FORTIFY_SOURCE" -U_FORTIFY_SOURCE
exit "$failed"
