// GFLOP/s of float32 fused multiply-adds on registers alone, by all threads together: what no
// matrix product can exceed on this processor. Built and run by cpu_bench.py.
//
// usage: fma_peak THREADS
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// More independent sums than two units with a latency of four or five cycles keep busy.
constexpr int kSums = 12;
constexpr int64_t kSteps = 1 << 20;  // some milliseconds

__attribute__((target("avx2,fma"))) float Multiply256() {
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  __m256 sums[kSums];
  for (__m256& sum : sums) sum = a;
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int s = 0; s < kSums; ++s) sums[s] = _mm256_fmadd_ps(sums[s], a, b);
  }
  for (int s = 1; s < kSums; ++s) sums[0] = _mm256_add_ps(sums[0], sums[s]);
  return _mm256_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f"))) float Multiply512() {
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = a;
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (int s = 0; s < kSums; ++s) sums[s] = _mm512_fmadd_ps(sums[s], a, b);
  }
  for (int s = 1; s < kSums; ++s) sums[0] = _mm512_add_ps(sums[0], sums[s]);
  return _mm512_cvtss_f32(sums[0]);
}

// The median of nine runs of a thread.
double Rate(float (*multiply)(), int lanes) {
  std::vector<double> rates;
  volatile float kept;
  for (int i = 0; i < 9; ++i) {
    const Clock::time_point begin = Clock::now();
    for (int k = 0; k < 20; ++k) kept = multiply();
    const std::chrono::duration<double> taken = Clock::now() - begin;
    rates.push_back(2e-9 * 20 * kSteps * kSums * lanes / taken.count());
  }
  static_cast<void>(kept);
  std::sort(rates.begin(), rates.end());
  return rates[4];
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc == 2 ? std::atoi(argv[1]) : 0;
  const bool wide = __builtin_cpu_supports("avx512f");
  if (threads < 1 || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 2;
  std::vector<double> rates(threads);
  std::vector<std::thread> running;
  for (double& rate : rates) {
    running.emplace_back(
        [&rate, wide] { rate = wide ? Rate(Multiply512, 16) : Rate(Multiply256, 8); });
  }
  double all = 0;
  for (int i = 0; i < threads; ++i) {
    running[i].join();
    all += rates[i];
  }
  std::printf("%.1f\n", all);
}
