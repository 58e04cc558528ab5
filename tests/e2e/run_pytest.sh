#!/usr/bin/env bash
# Runs a pytest file as a Bazel test, against the server of //deploy:bundle, or //server:sirocco as it
# is built where that is what the test was given.
set -euo pipefail
: "${SIROCCO_TEST_PYTHON:?run by deploy/test, which makes a Python environment}"
: "${SIROCCO_TEST_MODEL:?run by deploy/test, which brings the default model}"
if [[ -e server/sirocco ]]; then
  export SIROCCO_BIN="$PWD/server/sirocco"
else
  tar -C "$TEST_TMPDIR" -xf deploy/sirocco.tar
  export SIROCCO_BIN="$TEST_TMPDIR/sirocco/bin/sirocco"
fi
# What may be loaded before the server's libc.
[[ ! -e tests/faults/libfaults.so ]] || export SIROCCO_TEST_FAULTS="$PWD/tests/faults/libfaults.so"
export PYTHONDONTWRITEBYTECODE=1
exec "$SIROCCO_TEST_PYTHON" -m pytest -p no:cacheprovider -q --color=no --durations=5 \
  --basetemp="$TEST_TMPDIR/pytest" --junit-xml="$XML_OUTPUT_FILE" "$1"
