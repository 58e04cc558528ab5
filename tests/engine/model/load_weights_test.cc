#include <algorithm>
#include <map>

#include "engine/model/model_files.h"
#include "gtest/gtest.h"
#include "tests/engine/model/gguf_models.h"
#include "tests/engine/model/host_device.h"
#include "tests/engine/model/test_files.h"
#include "tests/testing/blocks.h"
#include "tests/testing/golden.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using Values = std::map<std::string, std::vector<float>>;

std::vector<float> ValuesOf(const Matrix& matrix) {
  if (InBlocks(matrix.dtype)) {
    const auto* bytes = static_cast<const uint8_t*>(matrix.data);
    return DecodeBlocks({bytes, bytes + BytesOf(matrix)}, matrix.dtype);
  }
  std::vector<float> values(static_cast<size_t>(matrix.rows) * matrix.cols);
  for (size_t i = 0; i < values.size(); ++i) {
    switch (matrix.dtype) {
      case DType::kFloat32:
        values[i] = static_cast<const float*>(matrix.data)[i];
        break;
      case DType::kBFloat16:
        values[i] = static_cast<const BFloat16*>(matrix.data)[i].ToFloat();
        break;
      case DType::kFloat16:
        values[i] = static_cast<float>(static_cast<const _Float16*>(matrix.data)[i]);
        break;
      default:
        break;
    }
  }
  return values;
}

std::vector<float> Rounded(std::vector<float> values, DType dtype) {
  for (float& value : values) {
    if (dtype == DType::kBFloat16) value = BFloat16::FromFloat(value).ToFloat();
    if (dtype == DType::kFloat16) value = static_cast<float>(static_cast<_Float16>(value));
  }
  return values;
}

// All weights against the values of their tensors, each in its place.
void ExpectWeights(const ModelWeights& weights, const Values& values, DType dtype) {
  uint64_t parameters = 0;
  const auto expect_matrix = [&](const Matrix& matrix, const std::string& name) {
    ASSERT_EQ(reinterpret_cast<uintptr_t>(matrix.data) % 16, 0u);
    EXPECT_EQ(matrix.dtype, dtype);
    // Not ASSERT_EQ, which would print every value.
    ASSERT_TRUE(ValuesOf(matrix) == Rounded(values.at(name), dtype)) << name;
    parameters += values.at(name).size();
  };
  const auto expect_vector = [&](const float* vector, const std::string& name) {
    ASSERT_NE(vector, nullptr) << name;
    const std::vector<float>& expected = values.at(name);
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), vector)) << name;
    parameters += expected.size();
  };
  expect_matrix(weights.embedding, "model.embed_tokens.weight");
  if (values.count("lm_head.weight") > 0) {
    expect_matrix(weights.head, "lm_head.weight");
  } else {
    EXPECT_EQ(weights.head.data, weights.embedding.data);
    EXPECT_EQ(weights.head.rows, weights.embedding.rows);
  }
  expect_vector(weights.final_norm, "model.norm.weight");
  const bool post_norms = values.count("model.layers.0.pre_feedforward_layernorm.weight") > 0;
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const LayerWeights& layer = weights.layers[i];
    const auto expect_if_any = [&](const float* vector, const std::string& name) {
      if (values.count(name) > 0) {
        expect_vector(vector, name);
      } else {
        EXPECT_EQ(vector, nullptr) << name;
      }
    };
    expect_vector(layer.attention_norm, prefix + "input_layernorm.weight");
    if (post_norms) {
      expect_vector(layer.attention_post_norm, prefix + "post_attention_layernorm.weight");
      expect_vector(layer.mlp_norm, prefix + "pre_feedforward_layernorm.weight");
      expect_vector(layer.mlp_post_norm, prefix + "post_feedforward_layernorm.weight");
    } else {
      expect_vector(layer.mlp_norm, prefix + "post_attention_layernorm.weight");
      EXPECT_EQ(layer.attention_post_norm, nullptr);
      EXPECT_EQ(layer.mlp_post_norm, nullptr);
    }
    expect_matrix(layer.q, prefix + "self_attn.q_proj.weight");
    expect_matrix(layer.k, prefix + "self_attn.k_proj.weight");
    expect_matrix(layer.v, prefix + "self_attn.v_proj.weight");
    expect_matrix(layer.o, prefix + "self_attn.o_proj.weight");
    expect_matrix(layer.gate, prefix + "mlp.gate_proj.weight");
    expect_matrix(layer.up, prefix + "mlp.up_proj.weight");
    expect_matrix(layer.down, prefix + "mlp.down_proj.weight");
    expect_if_any(layer.q_bias, prefix + "self_attn.q_proj.bias");
    expect_if_any(layer.k_bias, prefix + "self_attn.k_proj.bias");
    expect_if_any(layer.v_bias, prefix + "self_attn.v_proj.bias");
    expect_if_any(layer.q_norm, prefix + "self_attn.q_norm.weight");
    expect_if_any(layer.k_norm, prefix + "self_attn.k_norm.weight");
    EXPECT_EQ(layer.o_bias, nullptr);
    EXPECT_EQ(layer.down_bias, nullptr);
  }
  // Nothing that the files hold was left out.
  uint64_t elements = 0;
  for (const auto& [name, list] : values) elements += list.size();
  EXPECT_EQ(parameters, elements);
  EXPECT_EQ(weights.parameter_count, parameters);
}

class LoadWeightsTest : public ::testing::TestWithParam<DType> {};

TEST_P(LoadWeightsTest, Safetensors) {
  for (const std::string golden : {"llama_tied", "llama3_rope", "qwen2", "qwen3", "gemma3"}) {
    const auto files = OpenModel(GoldenPath(golden));
    ASSERT_TRUE(files.ok()) << files.status();
    HostDevice device;
    const auto weights = LoadWeights(*files, GetParam(), device, nullptr);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const auto tensors = ReadGoldenTensors(GoldenPath(golden + "/model.safetensors"));
    ASSERT_TRUE(tensors.ok());
    Values values;
    for (const auto& [name, tensor] : *tensors) {
      values[name] = tensor.floats;
      if (golden != "gemma3" || tensor.shape.size() != 1) continue;
      for (float& value : values[name]) value += 1;  // a norm's
    }
    ExpectWeights(*weights, values, GetParam());
  }
}

TEST_P(LoadWeightsTest, GgufOfEveryType) {
  const TestFolder folder;
  for (const std::string golden : {"llama3_rope", "qwen2", "qwen3", "gemma3"}) {
    for (const uint32_t type : {kGgmlF32, kGgmlF16, kGgmlBF16, kGgmlQ8_0, kGgmlQ4_0, kGgmlQ4_1}) {
      const GgufModel model = MakeGgufModel(golden, type);
      const auto files = OpenModel(folder.Write("model.gguf", model.writer.Bytes()));
      ASSERT_TRUE(files.ok()) << files.status();
      HostDevice device;
      const auto weights = LoadWeights(*files, GetParam(), device, nullptr);
      ASSERT_TRUE(weights.ok()) << weights.status();
      ExpectWeights(*weights, model.values, GetParam());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, LoadWeightsTest,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16, DType::kFloat16),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

// As they are stored, only in the rows' order, and then packed once each.
TEST(LoadWeightsBlocksTest, StayBlocks) {
  const std::pair<uint32_t, DType> types[] = {
      {kGgmlQ8_0, DType::kQ8_0}, {kGgmlQ4_0, DType::kQ4_0}, {kGgmlQ4_1, DType::kQ4_1}};
  for (const std::string golden : {"llama_tied", "llama3_rope", "qwen2", "gemma3"}) {
    for (const auto& [type, dtype] : types) {
      const GgufModel model = MakeGgufModel(golden, type);
      const TestFolder folder;
      const auto files = OpenModel(folder.Write("m.gguf", model.writer.Bytes()));
      ASSERT_TRUE(files.ok()) << files.status();
      const WeightTypes types_of(DType::kBFloat16, files->tensors.get());
      HostDevice device;
      EXPECT_EQ(LoadWeights(*files, types_of, device, nullptr).status().code(),
                absl::StatusCode::kUnimplemented);
      device.takes_blocks = true;
      const auto weights = LoadWeights(*files, types_of, device, nullptr);
      ASSERT_TRUE(weights.ok()) << weights.status();
      ExpectWeights(*weights, model.values, dtype);
      const size_t heads = files->descriptor.tied_head ? 0 : 1;
      EXPECT_EQ(device.packed.size(), weights->layers.size() * 7 + 1 + heads);
      EXPECT_EQ(weights->memory.front()->bytes(), WeightBytes(files->descriptor, types_of));
      EXPECT_LT(WeightBytes(files->descriptor, types_of),
                WeightBytes(files->descriptor, DType::kBFloat16));
    }
  }
}

TEST(LoadWeightsProgressTest, RisesToTheTotal) {
  const auto files = OpenModel(GoldenPath("llama_tied"));
  ASSERT_TRUE(files.ok());
  HostDevice device;
  std::vector<uint64_t> done;
  uint64_t total = 0;
  const auto weights =
      LoadWeights(*files, DType::kBFloat16, device, [&](uint64_t bytes, uint64_t all) {
        done.push_back(bytes);
        total = all;
      });
  ASSERT_TRUE(weights.ok());
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.size(), 38u);  // a report a weight
  EXPECT_EQ(done.back(), total);
  const uint64_t norms = 9 * 64;
  EXPECT_EQ(total, 2 * (weights->parameter_count - norms) + 4 * norms);
}

// A tensor larger than a chunk arrives whole, and nothing larger than a chunk is copied at once.
TEST(LoadWeightsChunkTest, LargeTensors) {
  const TestFolder folder;
  constexpr int32_t kVocabulary = 300000;
  std::string embedding;
  embedding.reserve(kVocabulary * 64 * 4);
  for (int32_t i = 0; i < kVocabulary * 64; ++i) embedding += Raw(static_cast<float>(i % 4096));
  GgufWriter writer;
  writer.String("general.architecture", "llama")
      .Uint32("llama.block_count", 1)
      .Uint32("llama.context_length", 8)
      .Uint32("llama.embedding_length", 64)
      .Uint32("llama.feed_forward_length", 1)
      .Uint32("llama.attention.head_count", 1)
      .Float32("llama.attention.layer_norm_rms_epsilon", 1e-6f)
      .Tensor("token_embd.weight", {kVocabulary, 64}, kGgmlF32, embedding);
  const std::string square(64 * 64 * 4, '\0');
  const std::string row(64 * 4, '\0');
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
    writer.Tensor(std::string("blk.0.") + name + ".weight", {64, 64}, kGgmlF32, square);
  }
  writer.Tensor("blk.0.ffn_gate.weight", {1, 64}, kGgmlF32, row)
      .Tensor("blk.0.ffn_up.weight", {1, 64}, kGgmlF32, row)
      .Tensor("blk.0.ffn_down.weight", {64, 1}, kGgmlF32, row)
      .Tensor("blk.0.attn_norm.weight", {64}, kGgmlF32, row)
      .Tensor("blk.0.ffn_norm.weight", {64}, kGgmlF32, row)
      .Tensor("output_norm.weight", {64}, kGgmlF32, row);
  const auto files = OpenModel(folder.Write("large.gguf", writer.Bytes()));
  ASSERT_TRUE(files.ok()) << files.status();
  for (const DType dtype : {DType::kFloat32, DType::kFloat16}) {  // copied; converted
    HostDevice device;
    const auto weights = LoadWeights(*files, dtype, device, nullptr);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const std::vector<float> values = ValuesOf(weights->embedding);
    int64_t wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const float expected = static_cast<float>(i % 4096);
      wrong += dtype == DType::kFloat32 ? values[i] != expected
                                        : std::abs(values[i] - expected) > expected / 2048;
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_LE(device.largest_copy, size_t{32} << 20);
  }
}

// Files that are cut short, or taken away, while their weights are read.
TEST(LoadWeightsErrorTest, AFileCutShort) {
  const TestFolder folder;
  const std::string path = folder.Write("m.gguf", MakeGgufModel("qwen2", kGgmlF16).writer.Bytes());
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {  // copied; converted
    const auto files = OpenModel(path);
    ASSERT_TRUE(files.ok()) << files.status();
    const std::string whole = ReadBytes(path);
    // The last tensor's last byte; a page and more.
    for (const size_t missing : {size_t{1}, size_t{70000}}) {
      ASSERT_LT(missing, whole.size());
      std::filesystem::resize_file(path, whole.size() - missing);
      HostDevice device;
      EXPECT_ERROR(LoadWeights(*files, dtype, device, nullptr), absl::StatusCode::kInvalidArgument,
                   path + ": has been cut short: of ");
    }
    folder.Write("m.gguf", whole);
  }
  // The file is open, whatever becomes of its name.
  const auto files = OpenModel(path);
  ASSERT_TRUE(files.ok()) << files.status();
  std::filesystem::remove(path);
  HostDevice device;
  EXPECT_TRUE(LoadWeights(*files, DType::kFloat16, device, nullptr).ok());
}

TEST(LoadWeightsErrorTest, TheDevicesErrorsComeBack) {
  const auto files = OpenModel(GoldenPath("qwen2"));
  ASSERT_TRUE(files.ok());
  HostDevice small;
  small.limit = 1000;
  EXPECT_EQ(LoadWeights(*files, DType::kBFloat16, small, nullptr).status().code(),
            absl::StatusCode::kResourceExhausted);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    HostDevice faulty;
    faulty.failing_copy = 20;
    EXPECT_EQ(LoadWeights(*files, dtype, faulty, nullptr).status().code(),
              absl::StatusCode::kInternal);
  }
}

}  // namespace
}  // namespace sirocco
