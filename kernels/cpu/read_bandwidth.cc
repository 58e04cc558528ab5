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

void Read(const void* context, int32_t task, int) {
  const Stream& stream = *static_cast<const Stream*>(context);
  const size_t begin = static_cast<size_t>(task) * kPiece;
  const size_t words = std::min(kPiece, stream.bytes - begin) / sizeof(uint64_t);
  const auto* from = reinterpret_cast<const uint64_t*>(stream.memory + begin);
  std::array<uint64_t, 16> sums = {};
  size_t i = 0;
  for (; i + sums.size() <= words; i += sums.size()) {
    for (size_t k = 0; k < sums.size(); ++k) sums[k] += from[i + k];
  }
  for (; i < words; ++i) sums[0] += from[i];
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  stream.sum.fetch_add(sum, std::memory_order_relaxed);
}

}  // namespace

double ReadBandwidth(ThreadPool& pool, void* memory, size_t bytes) {
  const Stream stream{static_cast<std::byte*>(memory), bytes};
  const auto pieces = static_cast<int32_t>((bytes + kPiece - 1) / kPiece);
  pool.Run(pieces, Write, &stream);
  std::array<double, 5> rates;
  for (double& rate : rates) {
    const auto begin = std::chrono::steady_clock::now();
    pool.Run(pieces, Read, &stream);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    rate = static_cast<double>(bytes) / std::max(taken.count(), 1e-9);
  }
  std::nth_element(rates.begin(), rates.begin() + 2, rates.end());
  return rates[2];
}

}  // namespace sirocco::cpu
