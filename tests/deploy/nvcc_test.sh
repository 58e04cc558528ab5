#!/usr/bin/env bash
# What nvcc makes has the same bytes wherever the sources lie and however old they are, for a GPU and as PTX, with names that are
# local to a file and with lines for profilers; and an error of its is an error.
set -euo pipefail
script="$PWD/$1" nvcc="$2"
source="kernels/some.cu"

# compile FOLDER FLAG...: kernels/some.cu there, to some.o.
compile() {
  (cd "$1" && env -i PATH=/usr/local/bin:/usr/bin:/bin TMPDIR=/tmp "$script" "$nvcc" "$source" -x cu -c "$source" \
    -o some.o -std=c++20 --objdir-as-tempdir -O3 -lineinfo -I. "${@:2}")
}

for folder in "$TEST_TMPDIR/one" "$TEST_TMPDIR/another/deeper"; do
  mkdir -p "$folder/kernels"
  printf '%s\n' '#pragma once' 'namespace { __device__ float Twice(float x) { return 2 * x; } }' >"$folder/kernels/some.cuh"
  cat >"$folder/$source" <<'CUDA'
#include "kernels/some.cuh"
namespace {
template <typename T>
__global__ void Kernel(T* x) { x[threadIdx.x] = Twice(x[threadIdx.x]); }
}
void Launch(float* x) { Kernel<<<1, 32>>>(x); }
CUDA
done
touch -d 2001-02-03 "$TEST_TMPDIR/another/deeper/$source" "$TEST_TMPDIR/another/deeper/kernels/some.cuh"
for gencode in arch=compute_90a,code=sm_90a arch=compute_80,code=compute_80; do
  compile "$TEST_TMPDIR/one" -gencode=$gencode
  compile "$TEST_TMPDIR/another/deeper" -gencode=$gencode
  cmp "$TEST_TMPDIR/one/some.o" "$TEST_TMPDIR/another/deeper/some.o"
  ! grep -aF -- "$TEST_TMPDIR" "$TEST_TMPDIR/one/some.o" || {
    echo "FAILED: the object holds the path of its sources"
    exit 1
  }
done
for broken in 'int x = "no number";' '__global__ void K() { asm("no.instruction;"); }'; do
  echo "$broken" >>"$TEST_TMPDIR/one/$source"
  ! compile "$TEST_TMPDIR/one" -gencode=arch=compute_90a,code=sm_90a 2>"$TEST_TMPDIR/errors" || {
    echo "FAILED: '$broken' was compiled"
    exit 1
  }
  grep -qi error "$TEST_TMPDIR/errors"
  sed -i '$d' "$TEST_TMPDIR/one/$source"
done
