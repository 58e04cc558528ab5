#!/usr/bin/env bash
# The page of dependencies names what is built from; the list of an archive's parts is well formed, and
# the same of the same archive.
set -euo pipefail
script="$1" page="$2" bundle="$3"
python3 "$script" --check "$page"

python3 "$script" --sbom "$TEST_TMPDIR/one" --bundle "$bundle"
python3 "$script" --sbom "$TEST_TMPDIR/two" --bundle "$bundle"
cmp "$TEST_TMPDIR/one" "$TEST_TMPDIR/two"
python3 - "$TEST_TMPDIR/one" "$bundle" <<'PYTHON'
import hashlib
import json
import sys
import tarfile

with open(sys.argv[1]) as file:
    sbom = json.load(file)
assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
with open(sys.argv[2], "rb") as file:
    assert sbom["metadata"]["component"]["hashes"][0]["content"] == \
        hashlib.sha256(file.read()).hexdigest()
named = {c["name"]: c for c in sbom["components"]}
with tarfile.open(sys.argv[2]) as tar:
    for member in tar:
        if member.isfile():
            assert named[member.name]["hashes"][0]["content"] == \
                hashlib.sha256(tar.extractfile(member).read()).hexdigest(), member.name
libraries = [c for c in sbom["components"] if c["type"] == "library"]
assert {"libgrpc++-dev", "libssl-dev", "libabsl-dev"} <= {c["name"] for c in libraries}
for library in libraries:
    assert library["version"] and library["licenses"] and library["purl"].startswith("pkg:deb/")
    assert not any("see /" in next(iter(one["license"].values())) for one in library["licenses"]), \
        f"{library['name']}: nobody has said by which licence it comes"
PYTHON

# A page that leaves something out is found.
sed '/libssl-dev/d' "$page" >"$TEST_TMPDIR/page"
! python3 "$script" --check "$TEST_TMPDIR/page" 2>/dev/null || {
  echo "FAILED: a page without libssl-dev passed"
  exit 1
}
