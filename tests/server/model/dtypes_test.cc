// What dtype and kv_cache_dtype mean on each backend.
#include "server/model/dtypes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/graphs/fake_device.h"

namespace sirocco {
namespace {

using ::testing::HasSubstr;

// A GPU computes in the weights' type, the CPU in float32.
class Gpu : public FakeDevice {
 public:
  std::string_view backend() const override { return "cuda"; }
  DType ActivationDType(DType weights) const override { return weights; }
};
class Cpu : public FakeDevice {
 public:
  std::string_view backend() const override { return "cpu"; }
  bool Offers(DType dtype) const override { return dtype != DType::kFloat16; }
};

class Tensors final : public TensorSource {
 public:
  explicit Tensors(std::vector<StoredTensor> tensors) : tensors_(std::move(tensors)) {}
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  const StoredTensor* Find(std::string_view) const override { return nullptr; }

 private:
  std::vector<StoredTensor> tensors_;
};

StoredTensor Tensor(StoredType type, std::vector<int64_t> shape) {
  StoredTensor tensor;
  tensor.type = type;
  tensor.shape = std::move(shape);
  return tensor;
}

TEST(DTypesTest, AutoIsBfloat16) {
  for (const DType stored : {DType::kBFloat16, DType::kFloat16}) {
    const auto dtypes = ChooseDTypes(Config{}, Cpu(), stored);
    ASSERT_TRUE(dtypes.ok()) << dtypes.status();
    EXPECT_EQ(dtypes->weights, DType::kBFloat16);
    EXPECT_EQ(dtypes->kv, DType::kBFloat16);
    EXPECT_EQ(dtypes->activations, DType::kFloat32);
  }
}

TEST(DTypesTest, OnCudaAutoIsFloat16WhereTheFileIs) {
  EXPECT_EQ(ChooseDTypes(Config{}, Gpu(), DType::kBFloat16)->weights, DType::kBFloat16);
  const auto half = ChooseDTypes(Config{}, Gpu(), DType::kFloat16);
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_EQ(half->weights, DType::kFloat16);
  EXPECT_EQ(half->kv, DType::kFloat16);
  EXPECT_EQ(half->activations, DType::kFloat16);
}

TEST(DTypesTest, NamedTypes) {
  Config config;
  config.dtype = "float32";
  config.kv_cache_dtype = "float16";
  const auto dtypes = ChooseDTypes(config, Gpu(), DType::kFloat16);
  ASSERT_TRUE(dtypes.ok()) << dtypes.status();
  EXPECT_EQ(dtypes->weights, DType::kFloat32);
  EXPECT_EQ(dtypes->kv, DType::kFloat16);
  config.kv_cache_dtype = "auto";
  EXPECT_EQ(ChooseDTypes(config, Gpu(), DType::kFloat16)->kv, DType::kFloat32);
}

TEST(DTypesTest, TheCpuHasNoFloat16) {
  Config config;
  config.dtype = "float16";
  const absl::Status weights = ChooseDTypes(config, Cpu(), DType::kBFloat16).status();
  EXPECT_EQ(weights.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(weights.message(),
            "dtype: 'float16' is not offered by the cpu backend; allowed there: auto, float32, "
            "bfloat16");
  config.dtype = "auto";
  config.kv_cache_dtype = "float16";
  EXPECT_THAT(std::string(ChooseDTypes(config, Cpu(), DType::kBFloat16).status().message()),
              HasSubstr("kv_cache_dtype: 'float16'"));
}

TEST(DTypesTest, TheKvCacheAloneMayBeFloat8) {
  Config config;
  config.kv_cache_dtype = "fp8";
  const auto dtypes = ChooseDTypes(config, Gpu(), DType::kBFloat16);
  ASSERT_TRUE(dtypes.ok()) << dtypes.status();
  EXPECT_EQ(dtypes->kv, DType::kFloat8);
  EXPECT_EQ(dtypes->weights, DType::kBFloat16);
  config.dtype = "fp8";
  EXPECT_EQ(ChooseDTypes(config, Gpu(), DType::kBFloat16).status().message(),
            "dtype: 'fp8' is not offered by the cuda backend; allowed there: auto, float32, "
            "bfloat16, float16");
}

TEST(DTypesTest, AutoKeepsBlocksWhereTheDeviceComputesFromThem) {
  class FromBlocks : public Cpu {
   public:
    bool ComputesFromBlocks(DType type) const override { return type == DType::kQ4_1; }
  };
  const auto kept = ChooseDTypes(Config{}, FromBlocks(), DType::kQ4_1);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_TRUE(kept->keep_blocks());
  EXPECT_EQ(kept->weights_name(), "Q4_1");
  EXPECT_EQ(kept->weights, DType::kBFloat16);
  EXPECT_EQ(kept->kv, DType::kBFloat16);
  EXPECT_EQ(kept->activations, DType::kFloat32);

  EXPECT_FALSE(ChooseDTypes(Config{}, FromBlocks(), DType::kQ8_0)->keep_blocks());
  EXPECT_FALSE(ChooseDTypes(Config{}, Gpu(), DType::kQ4_1)->keep_blocks());
  Config config;
  config.dtype = "bfloat16";
  const auto named = ChooseDTypes(config, FromBlocks(), DType::kQ4_1);
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_FALSE(named->keep_blocks());
  EXPECT_EQ(named->weights_name(), "bfloat16");
}

TEST(DTypesTest, StoredIsWhatMostElementsAre) {
  const StoredTensor half = Tensor(StoredType::kF16, {8, 8});
  const StoredTensor norm = Tensor(StoredType::kF32, {1000});  // no matrix: does not count
  EXPECT_EQ(StoredDType(Tensors({half, norm})), DType::kFloat16);
  EXPECT_EQ(StoredDType(Tensors({half, Tensor(StoredType::kBF16, {8, 16})})), DType::kBFloat16);
  EXPECT_EQ(StoredDType(Tensors({Tensor(StoredType::kQ8_0, {32, 32}), half})), DType::kQ8_0);
  EXPECT_EQ(StoredDType(Tensors({Tensor(StoredType::kF32, {32, 32}), half})), DType::kBFloat16);
  EXPECT_EQ(StoredDType(Tensors({})), DType::kBFloat16);
}

}  // namespace
}  // namespace sirocco
