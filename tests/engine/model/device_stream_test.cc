#include "engine/model/device_stream.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "gtest/gtest.h"
#include "tests/engine/model/host_device.h"

namespace sirocco {
namespace {

using Part = DeviceStream::Part;

// Parts of 1 to `most` bytes, with gaps between them.
std::vector<Part> PartsOf(size_t count, uint64_t most) {
  std::vector<Part> parts;
  uint64_t end = 0;
  for (size_t i = 0; i < count; ++i) {
    parts.push_back({end + i % 3, i * 7919 % most + 1});
    end = parts.back().offset + parts.back().bytes;
  }
  return parts;
}

uint64_t EndOf(const std::vector<Part>& parts) {
  return parts.empty() ? 0 : parts.back().offset + parts.back().bytes;
}

std::byte ByteOf(size_t part, uint64_t i) {
  return static_cast<std::byte>(part * 31 + i % 251 + 1);
}

absl::Status Make(size_t part, std::span<std::byte> out) {
  for (uint64_t i = 0; i < out.size(); ++i) out[i] = ByteOf(part, i);
  return absl::OkStatus();
}

// Far more parts than buffers, one, none. HostDevice copies as late as it may.
TEST(DeviceStreamTest, EveryPartInItsPlace) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{5}, size_t{1000}}) {
    const std::vector<Part> parts = PartsOf(count, 5000);
    HostDevice device;
    auto stream = DeviceStream::Start(device, parts, Make);
    ASSERT_TRUE(stream.ok()) << stream.status();
    std::vector<std::byte> memory(EndOf(parts));
    uint64_t bytes = 0, sent = 0;
    const absl::Status status = (*stream)->Send(memory.data(), [&](uint64_t part) {
      bytes += part;
      ++sent;
    });
    ASSERT_TRUE(status.ok()) << status;
    uint64_t wrong = 0, all = 0;
    std::vector<std::byte> expected(memory.size());
    for (size_t p = 0; p < count; ++p) {
      for (uint64_t i = 0; i < parts[p].bytes; ++i) expected[parts[p].offset + i] = ByteOf(p, i);
      all += parts[p].bytes;
    }
    for (size_t i = 0; i < memory.size(); ++i) wrong += memory[i] != expected[i];
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(sent, count);
    EXPECT_EQ(bytes, all);
  }
}

TEST(DeviceStreamTest, BuffersAreBoundedWhateverIsSent) {
  HostDevice device;
  constexpr uint64_t kMost = 64 << 10;
  const std::vector<Part> parts = PartsOf(4000, kMost);
  auto stream = DeviceStream::Start(device, parts, Make);
  ASSERT_TRUE(stream.ok()) << stream.status();
  std::vector<std::byte> memory(EndOf(parts));
  ASSERT_TRUE((*stream)->Send(memory.data(), nullptr).ok());
  EXPECT_LE(device.counters().allocations, 18u);
  EXPECT_LE(device.counters().host_bytes, 18 * kMost);
}

TEST(DeviceStreamTest, TheFirstErrorOfAPartEndsIt) {
  const std::vector<Part> parts = PartsOf(3000, 100);
  for (const size_t bad : {size_t{0}, size_t{1500}, size_t{2999}}) {
    HostDevice device;
    std::atomic<size_t> last = 0;
    auto stream = DeviceStream::Start(device, parts, [&](size_t part, std::span<std::byte> out) {
      if (part == bad) return absl::DataLossError("this one");
      if (part > last) last = part;
      return Make(part, out);
    });
    ASSERT_TRUE(stream.ok()) << stream.status();
    std::vector<std::byte> memory(EndOf(parts));
    const absl::Status status = (*stream)->Send(memory.data(), nullptr);
    EXPECT_EQ(status, absl::DataLossError("this one"));
    EXPECT_LT(last, std::min(bad + 100, parts.size()));  // what was under way, and no more
  }
}

TEST(DeviceStreamTest, TheDevicesErrorsEndIt) {
  const std::vector<Part> parts = PartsOf(3000, 100);
  for (const int copy : {1, 1500, 3000}) {
    HostDevice device;
    device.failing_copy = copy;
    auto stream = DeviceStream::Start(device, parts, Make);
    ASSERT_TRUE(stream.ok()) << stream.status();
    std::vector<std::byte> memory(EndOf(parts));
    EXPECT_EQ((*stream)->Send(memory.data(), nullptr).code(), absl::StatusCode::kInternal);
  }
}

// As where the device has no memory for the weights.
TEST(DeviceStreamTest, EndsUnsent) {
  HostDevice device;
  const auto stream = DeviceStream::Start(device, PartsOf(3000, 100), Make);
  ASSERT_TRUE(stream.ok()) << stream.status();
}

}  // namespace
}  // namespace sirocco
