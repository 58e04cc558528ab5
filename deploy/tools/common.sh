# What the scripts of deploy/ share. Sourced, with `set -euo pipefail` in force.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$ROOT"

# Bare CI machines run without HOME, which Bazel and the cache folders need.
if [[ -z "${HOME:-}" ]]; then
  HOME="$(getent passwd "$(id -u)" | cut -d: -f6)"
  [[ -n "$HOME" && -w "$HOME" ]] || HOME="${TMPDIR:-/tmp}/sirocco-home-$(id -u)"
  mkdir -p "$HOME"
  export HOME
fi

# The model and the tests' Python packages.
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/sirocco"

# Debian's own, whatever else PATH holds: deploy/install brings its pip and venv.
PYTHON=/usr/bin/python3

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# step TEXT: what happens next, with the seconds since the script began.
step() {
  printf '\n[%3ds] %s\n' "$SECONDS" "$*" >&2
}

# logged LOG COMMAND...: output goes to LOG; shown only if the command fails.
logged() {
  local log="$1"
  shift
  "$@" >"$log" 2>&1 || {
    local status=$?
    tail -n 40 "$log" >&2
    echo "${0##*/}: failed ($status): $*" >&2
    return "$status"
  }
}

# Sets `venv`: a Python environment of exactly tests/e2e/requirements.txt, made if it is not there;
# its name changes when that does.
python_environment() {
  local requirements=tests/e2e/requirements.txt key log
  key="$({ cat "$requirements" && "$PYTHON" --version; } | sha256sum | cut -c 1-12)"
  venv="$CACHE/venv-$key"
  [[ ! -e "$venv/.complete" ]] || return 0
  rm -rf "$venv"
  "$PYTHON" -m venv "$venv"
  log="$(mktemp)"
  logged "$log" "$venv/bin/python" -m pip install --disable-pip-version-check \
    --only-binary=:all: --requirement "$requirements" ||
    die "could not install the Python packages of $requirements"
  rm -f "$log"
  touch "$venv/.complete"
}

# cuda_release FOLDER: prints the release of the CUDA toolkit there, as 13.0; 0 if there is none.
cuda_release() {
  local release=""
  [[ ! -x "$1/bin/nvcc" ]] || release="$("$1/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
  echo "${release:-0}"
}

# Sets BAZEL_FLAGS: with the CUDA backend where a toolkit of 13.0 or newer is found; off a terminal,
# progress is a line now and then.
bazel_flags() {
  BAZEL_FLAGS=(--noshow_loading_progress)
  [[ -t 2 ]] || BAZEL_FLAGS+=(--show_progress_rate_limit=20 --color=no --curses=no)
  local home="${CUDA_HOME:-/usr/local/cuda}" release
  release="$(cuda_release "$home")"
  if ((${release%%.*} >= 13)); then
    BAZEL_FLAGS+=(--config=cuda)
    # A Bazel that runs since before the toolkit came looks again only where this has changed.
    export CUDA_HOME="$home"
  elif [[ "$release" != 0 ]]; then
    echo "CUDA $release in $home: 13.0 or newer is needed (deploy/install --cuda), building without" >&2
  fi
}

# Adds to BAZEL_FLAGS: the CUDA backend compiled for every GPU that it serves.
release_flags() {
  [[ " ${BAZEL_FLAGS[*]} " == *" --config=cuda "* ]] ||
    die "--release needs a CUDA toolkit of 13.0 or newer in \$CUDA_HOME or /usr/local/cuda;" \
      "deploy/install --cuda brings one"
  BAZEL_FLAGS+=(--config=cuda_release)
}
