#include "server/model/huge_page_heap.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sirocco {
namespace {

constexpr size_t kRoom = size_t{256} << 20;

uintptr_t HeapEnd() { return reinterpret_cast<uintptr_t>(sbrk(0)); }

int64_t Faults() {
  rusage usage;
  EXPECT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
  return usage.ru_minflt;
}

bool HasHugePages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  return std::getline(file, line) && line.find("[never]") == std::string::npos;
}

// Of the C library's malloc.
class HugePageHeapTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the sanitizer's malloc has no such heap";
#endif
  }
};

TEST_F(HugePageHeapTest, WhatIsAskedForLiesInTheRoomAndTheRestGoesBack) {
  const uintptr_t before = HeapEnd();
  std::vector<std::unique_ptr<char[]>> kept;
  {
    const HugePageHeap heap(kRoom);
    const uintptr_t end = HeapEnd();
    EXPECT_GE(end, before + kRoom);
    const int64_t faults = Faults();
    for (int i = 0; i < 1000; ++i) {
      kept.push_back(std::make_unique<char[]>(100000));  // zeroed: every page is touched
      const auto at = reinterpret_cast<uintptr_t>(kept.back().get());
      ASSERT_GE(at, before - (1 << 20));  // some was free before
      ASSERT_LT(at, end);
    }
    EXPECT_EQ(HeapEnd(), end);
    // Of 4 KiB 24,400; of 2 MiB 48, and some where there are not enough free.
    if (HasHugePages()) {
      EXPECT_LT(Faults() - faults, 12000);
    }
  }
  EXPECT_LT(HeapEnd(), before + kRoom);
  EXPECT_EQ(kept.front()[0] + kept.back()[99999], 0);
}

TEST_F(HugePageHeapTest, NoneIsMade) {
  const uintptr_t before = HeapEnd();
  const HugePageHeap none(0);
  EXPECT_EQ(HeapEnd(), before);
}

}  // namespace
}  // namespace sirocco
