#include "kernels/cpu/read_bandwidth.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

namespace sirocco::cpu {
namespace {

constexpr size_t kPiece = 1 << 20;

struct Stream {
  std::byte* memory;
  size_t bytes;
  mutable std::atomic<uint64_t> sum{0};  // so that reading has a purpose
};

// Task i: the i-th piece.
void Write(const void* context, int32_t task, int) {
  const Stream& stream = *static_cast<const Stream*>(context);
  const size_t begin = static_cast<size_t>(task) * kPiece;
  std::memset(stream.memory + begin, task + 1, std::min(kPiece, stream.bytes - begin));
}

// Sums of 64-bit words at kStreams places at once, `words` at each.
template <int kStreams>
uint64_t Sum(const uint64_t* from, size_t words) {
  constexpr size_t kStep = 16;
  std::array<uint64_t, kStep> sums = {};
  for (size_t i = 0; i + kStep <= words; i += kStep) {
    for (int s = 0; s < kStreams; ++s) {
      const uint64_t* at = from + s * words + i;
      for (size_t k = 0; k < kStep; ++k) sums[k] += at[k];
    }
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

// From end to end, or at four places at once: processors differ in which their prefetchers serve
// better.
template <int kStreams>
void Read(const void* context, int32_t task, int) {
  const Stream& stream = *static_cast<const Stream*>(context);
  const size_t begin = static_cast<size_t>(task) * kPiece;
  const size_t words = std::min(kPiece, stream.bytes - begin) / sizeof(uint64_t);
  const auto* from = reinterpret_cast<const uint64_t*>(stream.memory + begin);
  stream.sum.fetch_add(Sum<kStreams>(from, words / kStreams), std::memory_order_relaxed);
}

double Median(ThreadPool& pool, const Stream& stream, int32_t pieces, ThreadPool::Function read) {
  std::array<double, 5> rates;
  for (double& rate : rates) {
    const auto begin = std::chrono::steady_clock::now();
    pool.Run(pieces, read, &stream);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    rate = static_cast<double>(stream.bytes) / std::max(taken.count(), 1e-9);
  }
  std::nth_element(rates.begin(), rates.begin() + 2, rates.end());
  return rates[2];
}

}  // namespace

double ReadBandwidth(ThreadPool& pool, void* memory, size_t bytes) {
  const Stream stream{static_cast<std::byte*>(memory), bytes};
  const auto pieces = static_cast<int32_t>((bytes + kPiece - 1) / kPiece);
  pool.Run(pieces, Write, &stream);
  return std::max(Median(pool, stream, pieces, Read<1>), Median(pool, stream, pieces, Read<4>));
}

}  // namespace sirocco::cpu
