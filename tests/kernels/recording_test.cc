// What is recorded, and what becomes of it when it is launched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/ops_test.h"
#include "tests/kernels/world.h"

namespace sirocco {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::StatusCode kFailedPrecondition = absl::StatusCode::kFailedPrecondition;

class RecordingTest : public OpsTest {
 protected:
  bool IsCuda() { return device().backend() == "cuda"; }

  // sum += delta, on rows of their own.
  AddParams Sum(const std::vector<float>& sum, const std::vector<float>& delta) {
    AddParams p;
    p.rows = 1;
    p.sum = memory().Residual(sum, static_cast<int32_t>(sum.size()));
    p.delta = memory().Activations(delta, activations(), static_cast<int32_t>(delta.size()));
    return p;
  }

  template <typename Params>
  void Prepare(const Params& params) {
    ASSERT_TRUE(device().BeginPrepare().ok());
    const absl::Status status = ops().Run(params);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(device().EndPrepare().ok());
  }

  // Prepared before.
  template <typename Params>
  std::unique_ptr<Recording> Record(const std::vector<Params>& operations) {
    for (const Params& params : operations) Prepare(params);
    EXPECT_TRUE(device().BeginRecord().ok());
    for (const Params& params : operations) {
      const absl::Status status = ops().Run(params);
      EXPECT_TRUE(status.ok()) << status;
    }
    absl::StatusOr<std::unique_ptr<Recording>> recording = device().EndRecord();
    EXPECT_TRUE(recording.ok()) << recording.status();
    return recording.ok() ? *std::move(recording) : nullptr;
  }

  void Launch(const Recording& recording) {
    absl::Status status = device().Launch(recording);
    if (status.ok()) status = device().Synchronize();
    ASSERT_TRUE(status.ok()) << status;
  }

  // A greedy choice among `logits`, of lane 1.
  SampleParams Choice(const std::vector<float>& logits) {
    const int32_t vocab = static_cast<int32_t>(logits.size());
    World world(memory(), {.lanes = 2, .max_length = 40, .vocab_size = vocab}, 1);
    Lane lane;
    lane.length = 1;
    lane.top_p = 1;
    lane.repetition_penalty = 1;
    EXPECT_TRUE(device().CopyToDevice(world.lanes().lane + 1, &lane, sizeof(lane)).ok());
    EXPECT_TRUE(device().Synchronize().ok());
    SampleParams p;
    p.rows = 1;
    p.row_lane = memory().Upload(std::vector<int32_t>{1});
    p.lanes = world.lanes();
    p.logits = memory().Activations(logits, DType::kFloat32, vocab);
    p.out = memory().Upload(std::vector<TokenScore>(1));
    return p;
  }
};

TEST_P(RecordingTest, RecordingsDoNotNestAndEndOnce) {
  const uint64_t recordings = device().counters().recordings.load();
  ASSERT_TRUE(device().BeginRecord().ok());
  EXPECT_EQ(device().BeginRecord().code(), kFailedPrecondition);
  const auto recording = device().EndRecord();
  ASSERT_TRUE(recording.ok()) << recording.status();
  EXPECT_EQ((*recording)->size(), 0);
  EXPECT_EQ(device().EndRecord().status().code(), kFailedPrecondition);
  EXPECT_EQ(device().counters().recordings.load(), recordings + 1);
  Launch(**recording);
}

TEST_P(RecordingTest, NothingRunsUntilItIsLaunched) {
  const AddParams p = Sum({1, 2, 3, 4}, {1, 1, 1, 1});
  const uint64_t launches = device().counters().launches.load();
  const auto recording = Record<AddParams>({p, p});
  ASSERT_NE(recording, nullptr);
  EXPECT_EQ(recording->size(), 2);
  EXPECT_EQ(memory().Download(p.sum, 1), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(device().counters().launches.load(), launches);
  const uint64_t allocations = device().counters().allocations.load();
  Launch(*recording);
  EXPECT_EQ(memory().Download(p.sum, 1), (std::vector<float>{3, 4, 5, 6}));
  EXPECT_EQ(device().counters().replays.load(), 1u);
  EXPECT_EQ(device().counters().allocations.load(), allocations);
}

// It holds addresses, not values; and several recordings share them.
TEST_P(RecordingTest, EveryLaunchReadsWhatIsThenInMemory) {
  const AddParams p = Sum({0, 0}, {1, 2});
  const AddParams q = Sum({5, 5}, {1, 1});
  const auto first = Record<AddParams>({p});
  const auto second = Record<AddParams>({q, p});
  ASSERT_TRUE(first != nullptr && second != nullptr);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(device().Launch(*first).ok());
    ASSERT_TRUE(device().Launch(*second).ok());
  }
  ASSERT_TRUE(device().Synchronize().ok());
  EXPECT_EQ(memory().Download(p.sum, 1), (std::vector<float>{6, 12}));
  EXPECT_EQ(memory().Download(q.sum, 1), (std::vector<float>{8, 8}));
  const std::vector<float> other = {-6, -12};
  ASSERT_TRUE(device().CopyToDevice(p.sum.data, other.data(), 2 * sizeof(float)).ok());
  Launch(*first);
  EXPECT_EQ(memory().Download(p.sum, 1), (std::vector<float>{-5, -10}));
}

// Without programmatic edges a kernel would wait for the end of the one before: slower, and nothing
// else would tell.
TEST_P(RecordingTest, KernelsBeginBeforeTheOneBeforeEnds) {
  const AddParams p = Sum({0}, {1});
  const auto recording = Record<AddParams>({p, p, p});
  ASSERT_NE(recording, nullptr);
  const bool hopper = IsCuda() && device().name().find("portable") == std::string::npos;
  EXPECT_EQ(recording->overlaps(), hopper ? 2 : 0);
}

// Steps that grow a device's scratch memory do not take it away from what was recorded on it.
TEST_P(RecordingTest, WhatItUsesStaysWithIt) {
  const SampleParams few = Choice({1, 2, 5, 3});
  const auto recording = Record<SampleParams>({few});
  ASSERT_NE(recording, nullptr);
  std::vector<float> logits(50000, 0.0f);
  logits[40000] = 1;
  const SampleParams many = Choice(logits);
  Execute(many);
  EXPECT_EQ(memory().Download(many.out, 1)[0].token_id, 40000);
  Launch(*recording);
  EXPECT_EQ(memory().Download(few.out, 1)[0].token_id, 2);
}

TEST_P(RecordingTest, WhatARecordingCannotHoldIsRefusedAndSpoilsNothing) {
  if (!IsCuda()) GTEST_SKIP() << "the CPU backend does at once what is no operation";
  const AddParams p = Sum({1}, {1});
  Prepare(p);
  float word = 0;
  ASSERT_TRUE(device().BeginRecord().ok());
  EXPECT_EQ(device().Allocate(16, MemoryUse::kWorkspace).status().code(), kFailedPrecondition);
  EXPECT_EQ(device().AllocateHost(16).status().code(), kFailedPrecondition);
  EXPECT_EQ(device().Reserve(16, MemoryUse::kKv).status().code(), kFailedPrecondition);
  EXPECT_EQ(device().CopyToDevice(p.sum.data, &word, sizeof(word)).code(), kFailedPrecondition);
  EXPECT_EQ(device().CopyToHost(&word, p.sum.data, sizeof(word)).code(), kFailedPrecondition);
  EXPECT_EQ(device().Mark().status().code(), kFailedPrecondition);
  EXPECT_EQ(device().BeginPrepare().code(), kFailedPrecondition);
  const absl::Status waited = device().Synchronize();
  EXPECT_EQ(waited.code(), kFailedPrecondition);
  EXPECT_THAT(std::string(waited.message()), HasSubstr("recording"));
  ASSERT_TRUE(ops().Run(p).ok());
  const auto recording = device().EndRecord();
  ASSERT_TRUE(recording.ok()) << recording.status();
  EXPECT_EQ((*recording)->size(), 1);
  Launch(**recording);
  EXPECT_EQ(memory().Download(p.sum, 1), std::vector<float>{2});
}

TEST_P(RecordingTest, WhatWasNotPreparedIsNamed) {
  if (!IsCuda()) GTEST_SKIP() << "the CPU backend has nothing to choose";
  MatMulParams product;
  product.rows = 70;  // of fewer no device has to choose a kernel
  product.in = memory().Activations(std::vector<float>(70 * 32, 1.0f), activations(), 32);
  product.weight = memory().Weights(std::vector<float>(16 * 32, 1.0f), activations(), 16, 32);
  product.out = memory().Empty(70, activations(), 16);
  const SampleParams choice = Choice(std::vector<float>(1000, 1.0f));
  ASSERT_TRUE(device().BeginRecord().ok());
  if (!GetParam()
           .batch_invariant) {  // there nothing is chosen, and products need no scratch memory
    const absl::Status unchosen = ops().Run(product);
    EXPECT_EQ(unchosen.code(), kFailedPrecondition);
    EXPECT_THAT(std::string(unchosen.message()),
                AllOf(HasSubstr("matmul"), HasSubstr("was not prepared")));
  }
  const absl::Status larger = ops().Run(choice);
  EXPECT_EQ(larger.code(), kFailedPrecondition);
  EXPECT_THAT(std::string(larger.message()),
              AllOf(HasSubstr("sample"), HasSubstr("bytes of scratch memory")));
  EXPECT_TRUE(device().EndRecord().ok());
  Execute(product);  // prepares itself
  EXPECT_EQ(memory().Download(product.out, 70), std::vector<float>(70 * 16, 32.0f));
}

SIROCCO_ON_ALL_DEVICES(RecordingTest);

}  // namespace
}  // namespace sirocco
