// Goldens as GGUF files in blocks: computed from the blocks against the same values dequantised to
// float32, in every mode. Experts and what chooses them are dequantised, and the choice is the
// reference's, so that what is near a tie does not differ.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "tests/engine/model/gguf_models.h"
#include "tests/engine/model/test_files.h"
#include "tests/graphs/golden_rig.h"
#include "tests/testing/paths.h"
#include "tests/testing/tolerance.h"

namespace sirocco {
namespace {

struct Type {
  const char* name;
  uint32_t ggml;
};

class GoldenBlocksTest : public ::testing::TestWithParam<std::tuple<const char*, Type>> {};

TEST_P(GoldenBlocksTest, AreCloseToWhatTheyStandForInEveryMode) {
  const auto& [name, type] = GetParam();
  const absl::StatusOr<Golden> golden =
      ReadGolden(GoldenPath(std::string(name) + "/expected.safetensors"));
  ASSERT_TRUE(golden.ok()) << golden.status();
  const std::vector<Tokens> sequences = FullSequences(*golden);
  const TestFolder folder;
  const std::string path = folder.Write("m.gguf", MakeGgufModel(name, type.ggml).writer.Bytes());

  const GoldenRig plain(CreateCpuDevice(2), path, Mode::kEager, DType::kFloat32);
  ASSERT_NE(plain.executor, nullptr);
  const auto reference = ForceByDecoding(*plain.executor, sequences);
  ASSERT_TRUE(reference.ok()) << reference.status();
  const std::vector<int32_t> choices = plain.Choices();
  const GoldenRig eager(CreateCpuDevice(2), path, Mode::kEager, DType::kFloat32, true, choices);
  ASSERT_NE(eager.executor, nullptr);
  ASSERT_TRUE(InBlocks(eager.weights.layers[0].q.dtype));
  ASSERT_TRUE(InBlocks(eager.weights.head.dtype));
  const auto decoded = ForceByDecoding(*eager.executor, sequences);
  ASSERT_TRUE(decoded.ok()) << decoded.status();

  std::vector<double> errors;
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (size_t p = 0; p < sequences[i].size(); ++p) {
      errors.push_back(RelativeError((*decoded)[i][p], (*reference)[i][p]));
    }
  }
  ASSERT_GT(errors.size(), 20u);
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() / 2], kBlocksTolerance.median);
  EXPECT_LT(errors.back(), kBlocksTolerance.largest);
  EXPECT_GT(errors.back(), 0);  // int8 was really on

  if (choices.empty()) {  // those are of other lanes
    const auto prefilled = ForceByPrefill(*eager.executor, sequences[0]);
    ASSERT_TRUE(prefilled.ok()) << prefilled.status();
    EXPECT_EQ(*prefilled, (*decoded)[0]);
  }
  for (const Mode mode : {Mode::kDecoderGraph, Mode::kDecoder, Mode::kLayerGraph, Mode::kLayer}) {
    const GoldenRig rig(CreateCpuDevice(1), path, mode, DType::kFloat32, true, choices);
    ASSERT_NE(rig.executor, nullptr);
    const auto logits = ForceByDecoding(*rig.executor, sequences);
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_TRUE(*logits == *decoded) << NameOf(mode);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenBlocksTest,
                         ::testing::Combine(::testing::Values("llama_tied", "llama3_rope", "qwen2",
                                                              "qwen3", "gemma3", "mixtral"),
                                            ::testing::Values(Type{"Q8_0", kGgmlQ8_0},
                                                              Type{"Q4_0", kGgmlQ4_0},
                                                              Type{"Q4_1", kGgmlQ4_1})),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::get<1>(info.param).name;
                         });

}  // namespace
}  // namespace sirocco
