#!/usr/bin/env bash
# deploy/tools/cuda-toolkit, with small wheels of the same shape in place of NVIDIA's: what it lays out is
# what the build looks for, and what is wrong is refused in a line and leaves nothing behind. (Nothing is
# downloaded.) And the pins of the real wheels are whole.
# usage: cuda_toolkit_test.sh CUDA_TOOLKIT COMMON REQUIREMENTS
set -euo pipefail
tool="$PWD/$1" common="$PWD/$2" pins="$PWD/$3"
cd "$TEST_TMPDIR"
failed=0
fail() {
  echo "FAILED: $*"
  failed=1
}

# ---- The real pins: each with one version and the digest of one file ------------------------------
lines="$(grep -v '^#' "$pins")"
! grep -Ev '^nvidia-[a-z-]+==[0-9]+(\.[0-9]+)+ --hash=sha256:[0-9a-f]{64}$' <<<"$lines" ||
  fail "a line of $pins is no exact pin"
for part in cublas cuda-cccl cuda-crt cuda-nvcc cuda-runtime nvvm; do
  grep -q "^nvidia-$part==13\." <<<"$lines" || fail "$pins has no nvidia-$part of CUDA 13"
done
# The compiler's parts are of one release.
[[ "$(sed -n 's/^nvidia-\(cuda-crt\|cuda-nvcc\|nvvm\)==\([^ ]*\) .*/\2/p' <<<"$lines" | sort -u | wc -l)" == 1 ]] ||
  fail "$pins has parts of several compilers"

# ---- Wheels of the same shape --------------------------------------------------------------------
# wheel NAME FILE...: nvidia_NAME-13.0.1 in wheels/, with what lies in parts/ under those names.
mkdir wheels
wheel() {
  python3 - "$@" <<'PYTHON'
import base64, hashlib, os, sys, zipfile
name, *files = sys.argv[1:]
info = f"nvidia_{name}-13.0.1.dist-info"
record = []
with zipfile.ZipFile(f"wheels/nvidia_{name}-13.0.1-py3-none-any.whl", "w") as wheel:
    def add(path, data, mode=0o644):
        entry = zipfile.ZipInfo(path)
        entry.external_attr = (0o100000 | mode) << 16
        wheel.writestr(entry, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(data)}")
    for file in files:
        with open(f"parts/{file}", "rb") as data:
            add(f"nvidia/cu13/{file}", data.read(), os.stat(f"parts/{file}").st_mode & 0o777)
    add(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: nvidia-{name.replace('_', '-')}\nVersion: 13.0.1\n".encode())
    add(f"{info}/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
PYTHON
}
# compiler FILE RELEASE [COMPILES]: in place of nvcc.
compiler() {
  mkdir -p "$(dirname "$1")"
  printf '#!/bin/sh\n[ "$1" = --version ] && { echo "Cuda compilation tools, release %s, V%s.1"; exit; }\n%s\n' \
    "$2" "$2" "${3:-exit 0}" >"$1"
  chmod +x "$1"
}
mkdir -p parts/include parts/lib
for file in include/cublasLt.h include/cuda.h include/cuda_runtime_api.h lib/libcublasLt.so.13 \
  lib/libcudart.so.13 lib/libcudart_static.a; do
  echo "$file" >"parts/$file"
done
compiler parts/bin/nvcc 13.0
# requirements: of all wheels, as they are.
requirements() {
  local file
  for file in wheels/*.whl; do
    echo "$(basename "$file" | sed 's/^nvidia_\([a-z_]*\)-\([0-9.]*\)-.*/nvidia-\1==\2/')" \
      "--hash=sha256:$(sha256sum "$file" | cut -d ' ' -f 1)"
  done
}
wheel cublas include/cublasLt.h lib/libcublasLt.so.13
wheel cuda_runtime include/cuda.h include/cuda_runtime_api.h lib/libcudart.so.13 lib/libcudart_static.a
wheel cuda_nvcc bin/nvcc
requirements >requirements.txt
export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/wheels" PIP_CONFIG_FILE=/dev/null HOME="$PWD"

# ---- What it lays out ----------------------------------------------------------------------------
"$tool" requirements.txt made/cuda 2>log || fail "it made nothing: $(cat log)"
grep -q 'CUDA toolkit: 13.0, in .*/made/cuda' log || fail "it said: $(cat log)"
for file in include/cublasLt.h include/cuda_runtime_api.h lib64/libcudart_static.a lib64/libcublasLt.so; do
  [[ -s "made/cuda/$file" ]] || fail "no $file"
done
[[ "$(readlink made/cuda/lib64/libcublasLt.so)" == libcublasLt.so.13 ]] || fail "libcublasLt.so is no link"
[[ -x made/cuda/bin/nvcc ]] || fail "the compiler may not be run"
[[ "$(ls -d made/cuda/dist-info/nvidia_*.dist-info | wc -l)" == 3 ]] || fail "the packages' own files are not kept"
# Nobody but who may write beside it needs to be able to write it; everybody to read.
[[ "$(stat -c %a made/cuda)" == 755 ]] || fail "the folder's mode is $(stat -c %a made/cuda)"
[[ "$(ls -A made)" == cuda ]] || fail "it left: $(ls -A made)"

# It stays: also where the packages could not be had any more.
touch made/cuda/mine
PIP_FIND_LINKS=/nowhere "$tool" requirements.txt made/cuda 2>log || fail "a toolkit that is there: $(cat log)"
[[ -e made/cuda/mine ]] && grep -q 'CUDA toolkit: 13.0 is there' log || fail "it was made anew: $(cat log)"

# An empty folder is filled, also of a name with a space.
mkdir -p "an empty/folder"
"$tool" requirements.txt "an empty/folder" 2>log || fail "an empty folder: $(cat log)"
[[ -x "an empty/folder/bin/nvcc" ]] || fail "an empty folder stayed empty"

# The build finds it by CUDA_HOME, and says what is wrong with an older one.
# flags HOME: what deploy/build gives Bazel.
flags() {
  CUDA_HOME="$1" bash -c 'set -euo pipefail; source "$1"; bazel_flags; echo "${BAZEL_FLAGS[*]} $CUDA_HOME"' \
    bash "$common" 2>&1
}
[[ "$(flags "$PWD/made/cuda")" == *" --config=cuda $PWD/made/cuda" ]] || fail "flags: $(flags "$PWD/made/cuda")"
[[ "$(flags "$PWD/nowhere")" != *--config=cuda* ]] || fail "flags without one: $(flags "$PWD/nowhere")"
compiler old/bin/nvcc 12.4
[[ "$(flags "$PWD/old")" == "CUDA 12.4 in $PWD/old: 13.0 or newer is needed"* ]] || fail "an old one: $(flags "$PWD/old")"

# ---- What it refuses -----------------------------------------------------------------------------
# refuses TEXT REQUIREMENTS TARGET: with a last line that has TEXT, leaving what was there.
refuses() {
  local before after
  before="$(find . -not -name log | sort)"
  ! "$tool" "$2" "$3" 2>log || fail "'$1' was not refused"
  tail -n 1 log | grep -qF -- "$1" || fail "it does not say '$1' but: $(cat log)"
  after="$(find . -not -name log | sort)"
  [[ "$before" == "$after" ]] || fail "'$1' left: $(diff <(echo "$before") <(echo "$after"))"
}
refuses "holds CUDA 12.4, and 13.0 or newer is needed; set CUDA_HOME" requirements.txt old
mkdir -p other/lib64 && touch other/lib64/libcublasLt.so.13
refuses "holds something that is no CUDA toolkit; set CUDA_HOME" requirements.txt other
mkdir new
sed '1s/sha256:./sha256:0/;1s/sha256:00/sha256:10/' requirements.txt >wrong.txt
refuses "could not install the packages of" wrong.txt new/cuda
grep -qi "hash" log || fail "a wrong digest is not told: $(cat log)"
grep -v cublas requirements.txt >less.txt
refuses "hold no include/cublasLt.h" less.txt new/cuda
sed 's/ --hash.*//' requirements.txt >unpinned.txt
refuses "could not install the packages of" unpinned.txt new/cuda
compiler parts/bin/nvcc 13.0 "echo 'no host compiler' >&2; exit 1"
wheel cuda_nvcc bin/nvcc
requirements >broken.txt
refuses "compiles nothing here" broken.txt new/cuda
grep -q "no host compiler" log || fail "what its compiler said is not told: $(cat log)"
compiler parts/bin/nvcc 12.9
wheel cuda_nvcc bin/nvcc
requirements >older.txt
refuses "hold CUDA 12.9" older.txt new/cuda
exit "$failed"
