#!/usr/bin/env bash
# Builds llama.cpp's `llama-bench`, and two programs beside it, for this machine's processor, out of
# the sources in PyPI's llama-cpp-python, to measure beside Sirocco, and prints its path. Everything
# stays in the cache folder; a program that is there is not built again.
#
# usage: tests/bench/build_llama_bench.sh
set -euo pipefail
source "$(dirname "$0")/../../deploy/tools/common.sh"
(($# == 0)) || die "unknown argument '$1'; usage: tests/bench/build_llama_bench.sh"

version="0.3.36"
sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
folder="$CACHE/llama.cpp"
archive="$folder/llama_cpp_python-$version.tar.gz"
build="$folder/build-$version"
program="$build/bin/llama-bench"

mkdir -p "$folder"
exec 9>"$folder/.lock"
flock 9
if [[ -x "$program" ]]; then
  echo "$program"
  exit 0
fi
for tool in cmake g++; do
  command -v "$tool" >/dev/null || die "$tool is not installed; deploy/install --bench brings it"
done

intact() {
  [[ -f "$archive" ]] && echo "$sha256  $archive" | sha256sum --check --status
}
if ! intact; then
  echo "llama.cpp: downloading llama-cpp-python $version (77 MB)" >&2
  logged "$folder/download.log" "$PYTHON" -m pip download --quiet --disable-pip-version-check \
    --no-deps --no-cache-dir --no-binary=:all: --dest "$folder" "llama-cpp-python==$version" ||
    die "could not download llama-cpp-python $version"
  intact || die "llama-cpp-python $version has another SHA-256 than $sha256"
fi
source_folder="$folder/llama_cpp_python-$version/vendor/llama.cpp"
rm -rf "${folder:?}/llama_cpp_python-$version" "$build"
tar -xzf "$archive" -C "$folder"

# g++ 12's _tile_loadconfig tells the compiler that the instruction reads 8 bytes of its operand: it
# reads 64. Stores to the others are dropped as unused, and on a processor with AMX llama-bench ends
# in a fault at ldtilecfg. What tells that all of it is read stands before the call.
amx="$source_folder/ggml/src/ggml-cpu/amx/mmq.cpp"
load='_tile_loadconfig(&tc);'
keep='__asm__ volatile("" ::"r"(&tc) : "memory");'
[[ -f "$amx" && "$(grep -cF "$load" "$amx")" == 1 ]] ||
  die "llama.cpp $version: expected one line with '$load' in $amx, to be mended for g++ 12"
sed -i "/$load/i\\    $keep" "$amx"
[[ "$(grep -F -B 1 "$load" "$amx" | grep -cF "$keep")" == 1 ]] || die "could not mend $amx"

echo "llama.cpp: building llama-bench, some minutes" >&2
logged "$folder/configure.log" cmake -S "$source_folder" -B "$build" -DCMAKE_BUILD_TYPE=Release \
  -DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
  -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_COMMON=ON ||
  die "llama.cpp could not be configured"
logged "$folder/build.log" cmake --build "$build" --parallel 2 \
  --target llama-bench llama-batched-bench llama-quantize ||
  die "llama.cpp could not be built"
echo "$program"
