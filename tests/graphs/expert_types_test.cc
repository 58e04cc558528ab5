// Experts of a GGUF file, three dimensions a tensor, in every type that is read: on every device
// the model computes the bits of the same file whose experts are written out in float32.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "engine/model/dequantise.h"
#include "kernels/dtype.h"
#include "tests/engine/model/gguf_writer.h"
#include "tests/engine/model/test_files.h"
#include "tests/graphs/golden_rig.h"
#include "tests/kernels/devices.h"

namespace sirocco {
namespace {

// Rows of one block of the widest types; an odd number of rows an expert, so that no expert's
// blocks are another's.
constexpr uint64_t kHidden = 256, kIntermediate = 256, kExperts = 3, kVocabulary = 16;
constexpr uint64_t kElements = kExperts * kIntermediate * kHidden;

struct Type {
  StoredType stored;
  uint32_t ggml;
  std::vector<size_t> scales;  // where the float16 numbers of a block are, in bytes
};

const std::vector<Type>& Types() {
  static const std::vector<Type> types = {
      {StoredType::kF32, kGgmlF32, {}},      {StoredType::kF16, kGgmlF16, {}},
      {StoredType::kBF16, kGgmlBF16, {}},    {StoredType::kQ8_0, kGgmlQ8_0, {0}},
      {StoredType::kQ4_0, kGgmlQ4_0, {0}},   {StoredType::kQ4_1, kGgmlQ4_1, {0, 2}},
      {StoredType::kQ5_0, kGgmlQ5_0, {0}},   {StoredType::kQ5_1, kGgmlQ5_1, {0, 2}},
      {StoredType::kQ4_K, kGgmlQ4K, {0, 2}}, {StoredType::kQ5_K, kGgmlQ5K, {0, 2}},
      {StoredType::kQ6_K, kGgmlQ6K, {208}}};
  return types;
}

// Bits of one fixed sequence (Steele and others, 2014).
class Bits {
 public:
  explicit Bits(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }
  float Small() { return static_cast<float>(static_cast<int64_t>(Next()) >> 44) * 0x1p-22f; }

 private:
  uint64_t state_;
};

std::string Floats(uint64_t count, uint64_t seed) {
  Bits bits(seed);
  std::string bytes;
  for (uint64_t i = 0; i < count; ++i) bytes += Raw(bits.Small());
  return bytes;
}

// kElements in the type, all bits of a block random but its scales.
std::string Encoded(const Type& type, uint64_t seed) {
  Bits bits(seed);
  std::string bytes;
  if (type.scales.empty()) {
    for (uint64_t i = 0; i < kElements; ++i) {
      const float value = bits.Small();
      if (type.stored == StoredType::kF32) bytes += Raw(value);
      if (type.stored == StoredType::kF16) bytes += Raw(static_cast<_Float16>(value));
      if (type.stored == StoredType::kBF16) bytes += Raw(value).substr(2);
    }
    return bytes;
  }
  const BlockLayout layout = LayoutOf(type.stored);
  for (uint64_t i = 0; i < kElements; i += layout.elements) {
    std::string block;
    for (int32_t b = 0; b < layout.bytes; ++b) block += static_cast<char>(bits.Next());
    for (const size_t at : type.scales) {
      block.replace(at, 2, Raw(static_cast<_Float16>(bits.Small() * 0.02f)));
    }
    bytes += block;
  }
  return bytes;
}

// What they stand for, in float32. How blocks are read: tensor_rows_test.
std::string WrittenOut(const Type& type, const std::string& bytes) {
  std::vector<float> values(kElements);
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  const BlockLayout layout = LayoutOf(type.stored);
  for (uint64_t i = 0; i < kElements; i += layout.elements, data += layout.bytes) {
    switch (type.stored) {
      case StoredType::kF32:
        std::memcpy(&values[i], data, sizeof(float));
        break;
      case StoredType::kF16:
        values[i] = Float16ToFloat(LoadHalf(data));
        break;
      case StoredType::kBF16:
        values[i] = BFloat16{LoadHalf(data)}.ToFloat();
        break;
      default:
        DequantiseBlock(type.stored, data, &values[i]);
        break;
    }
  }
  std::string out;
  for (const float value : values) out += Raw(value);
  return out;
}

// A file of one layer, whose experts are `gate`, `up` and `down` in `type`.
std::string File(uint32_t type, const std::string& gate, const std::string& up,
                 const std::string& down) {
  GgufWriter writer;
  writer.String("general.architecture", "qwen3moe")
      .Uint32("qwen3moe.block_count", 1)
      .Uint32("qwen3moe.context_length", 128)
      .Uint32("qwen3moe.embedding_length", kHidden)
      .Uint32("qwen3moe.feed_forward_length", kIntermediate)
      .Uint32("qwen3moe.attention.head_count", 2)
      .Uint32("qwen3moe.attention.head_count_kv", 1)
      .Uint32("qwen3moe.attention.key_length", 32)
      .Uint32("qwen3moe.attention.value_length", 32)
      .Float32("qwen3moe.attention.layer_norm_rms_epsilon", 1e-6f)
      .Float32("qwen3moe.rope.freq_base", 10000)
      .Uint32("qwen3moe.expert_count", kExperts)
      .Uint32("qwen3moe.expert_used_count", 2)
      .Uint32("qwen3moe.expert_feed_forward_length", kIntermediate)
      .Uint32("tokenizer.ggml.eos_token_id", 2);
  uint64_t seed = 100;
  const auto add = [&](const std::string& name, const std::vector<uint64_t>& shape) {
    uint64_t count = 1;
    for (const uint64_t extent : shape) count *= extent;
    writer.Tensor(name + ".weight", shape, kGgmlF32, Floats(count, ++seed));
  };
  add("token_embd", {kVocabulary, kHidden});
  add("output_norm", {kHidden});
  add("blk.0.attn_norm", {kHidden});
  add("blk.0.attn_q", {64, kHidden});
  add("blk.0.attn_k", {32, kHidden});
  add("blk.0.attn_v", {32, kHidden});
  add("blk.0.attn_q_norm", {32});
  add("blk.0.attn_k_norm", {32});
  add("blk.0.attn_output", {kHidden, 64});
  add("blk.0.ffn_norm", {kHidden});
  add("blk.0.ffn_gate_inp", {kExperts, kHidden});
  writer.Tensor("blk.0.ffn_gate_exps.weight", {kExperts, kIntermediate, kHidden}, type, gate)
      .Tensor("blk.0.ffn_up_exps.weight", {kExperts, kIntermediate, kHidden}, type, up)
      .Tensor("blk.0.ffn_down_exps.weight", {kExperts, kHidden, kIntermediate}, type, down);
  return writer.Bytes();
}

class ExpertTypesTest : public ::testing::TestWithParam<std::tuple<DeviceCase, Type>> {
 protected:
  // Of two sequences; whatever the file holds in blocks may stay so, where the device takes blocks.
  std::vector<Logits> LogitsOf(const std::string& file) {
    const DeviceCase& device = std::get<0>(GetParam());
    const bool keep_blocks = device.name.rfind("cpu", 0) == 0;
    const GoldenRig rig(device.create(), folder_.Write("m.gguf", file), Mode::kLayerGraph,
                        device.activations, keep_blocks);
    if (rig.executor == nullptr) return {};
    auto logits = ForceByDecoding(*rig.executor, {{1, 5, 9, 3, 11, 7}, {4, 15, 2}});
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.ok() ? *std::move(logits) : std::vector<Logits>();
  }
  TestFolder folder_;
};

TEST_P(ExpertTypesTest, AsWrittenOutInFloat32) {
  const Type& type = std::get<1>(GetParam());
  const std::string gate = Encoded(type, 1), up = Encoded(type, 2), down = Encoded(type, 3);
  const auto logits = LogitsOf(File(type.ggml, gate, up, down));
  ASSERT_EQ(logits.size(), 2u);
  const auto expected = LogitsOf(
      File(kGgmlF32, WrittenOut(type, gate), WrittenOut(type, up), WrittenOut(type, down)));
  EXPECT_TRUE(logits == expected);
  // It is the experts that say so.
  EXPECT_FALSE(logits == LogitsOf(File(type.ggml, gate, up, Encoded(type, 4))));
}

INSTANTIATE_TEST_SUITE_P(Devices, ExpertTypesTest,
                         ::testing::Combine(::testing::ValuesIn(Devices()),
                                            ::testing::ValuesIn(Types())),
                         [](const auto& info) {
                           return CaseName(std::get<0>(info.param)) + "_" +
                                  std::string(NameOf(std::get<1>(info.param).stored));
                         });

}  // namespace
}  // namespace sirocco
