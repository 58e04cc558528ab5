#include "engine/model/gguf.h"

#include <sys/resource.h>

#include <cmath>
#include <functional>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/gguf_writer.h"
#include "tests/engine/model/stored_bytes.h"
#include "tests/engine/model/test_files.h"

namespace sirocco {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::Optional;

class GgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& bytes) {
    return GgufFile::Open(folder_.Write("test.gguf", bytes));
  }
  absl::StatusOr<std::unique_ptr<GgufFile>> Open(const GgufWriter& writer) {
    return Open(writer.Bytes());
  }

  TestFolder folder_;
};

std::string Floats(std::initializer_list<float> values) {
  std::string bytes;
  for (const float value : values) bytes += Raw(value);
  return bytes;
}

GgufWriter Small() {
  GgufWriter writer;
  writer.String("general.architecture", "llama")
      .Uint32("llama.block_count", 2)
      .Array("list", kMetaString, 2, RawString("a") + RawString("bc"))
      .Array("flags", kMetaBool, 2, std::string("\0\1", 2))
      .Tensor("first", {2, 3}, kGgmlF32, Floats({1, 2, 3, 4, 5, 6}))
      .Tensor("second", {32}, kGgmlQ8_0, std::string(34, 'x'));
  return writer;
}

TEST_F(GgufTest, MetadataOfEveryType) {
  GgufWriter writer;
  writer.Key("u8", kMetaUint8, Raw<uint8_t>(200))
      .Key("i8", kMetaInt8, Raw<int8_t>(-100))
      .Key("u16", kMetaUint16, Raw<uint16_t>(60000))
      .Key("i16", kMetaInt16, Raw<int16_t>(-30000))
      .Key("u32", kMetaUint32, Raw<uint32_t>(4000000000u))
      .Key("i32", kMetaInt32, Raw<int32_t>(-2000000000))
      .Key("u64", kMetaUint64, Raw<uint64_t>(uint64_t{1} << 62))
      .Key("u64_beyond", kMetaUint64, Raw<uint64_t>(uint64_t{1} << 63))
      .Key("i64", kMetaInt64, Raw<int64_t>(-5))
      .Key("f32", kMetaFloat32, Raw(0.5f))
      .Key("f64", kMetaFloat64, Raw(0.1))
      .Key("yes", kMetaBool, Raw<uint8_t>(1))
      .Key("no", kMetaBool, Raw<uint8_t>(0))
      .String("text", "h\xc3\xa9")
      .Array("ints", kMetaInt32, 3, Raw<int32_t>(1) + Raw<int32_t>(-2) + Raw<int32_t>(3))
      .Array("floats", kMetaFloat32, 2, Floats({1.5f, -2}))
      .Array("strings", kMetaString, 2, RawString("") + RawString("xy"))
      .Array("empty", kMetaInt64, 0, "");
  const auto file = Open(writer);
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufFile& gguf = **file;
  EXPECT_EQ(gguf.version(), 3u);
  EXPECT_THAT(gguf.GetInt("u8"), Optional(200));
  EXPECT_THAT(gguf.GetInt("i8"), Optional(-100));
  EXPECT_THAT(gguf.GetInt("u16"), Optional(60000));
  EXPECT_THAT(gguf.GetInt("i16"), Optional(-30000));
  EXPECT_THAT(gguf.GetInt("u32"), Optional(4000000000));
  EXPECT_THAT(gguf.GetInt("i32"), Optional(-2000000000));
  EXPECT_THAT(gguf.GetInt("u64"), Optional(int64_t{1} << 62));
  EXPECT_EQ(gguf.GetInt("u64_beyond"), std::nullopt);
  EXPECT_THAT(gguf.GetInt("i64"), Optional(-5));
  EXPECT_THAT(gguf.GetFloat("f32"), Optional(0.5));
  EXPECT_THAT(gguf.GetFloat("f64"), Optional(0.1));
  EXPECT_THAT(gguf.GetBool("yes"), Optional(true));
  EXPECT_THAT(gguf.GetBool("no"), Optional(false));
  EXPECT_THAT(gguf.GetString("text"), Optional(std::string_view("h\xc3\xa9")));
  EXPECT_THAT(gguf.GetInts("ints"), Optional(ElementsAre(1, -2, 3)));
  EXPECT_THAT(gguf.GetFloats("floats"), Optional(ElementsAre(1.5f, -2.0f)));
  EXPECT_THAT(gguf.GetStrings("strings"), Optional(ElementsAre("", "xy")));
  EXPECT_THAT(gguf.GetInts("empty"), Optional(ElementsAre()));
  EXPECT_THAT(gguf.GetArraySize("strings"), Optional(2u));
  EXPECT_EQ(gguf.keys().size(), 18u);
  // Of another kind, or not there.
  EXPECT_EQ(gguf.GetInt("f32"), std::nullopt);
  EXPECT_EQ(gguf.GetFloat("u8"), std::nullopt);
  EXPECT_EQ(gguf.GetBool("u8"), std::nullopt);
  EXPECT_EQ(gguf.GetString("strings"), std::nullopt);
  EXPECT_EQ(gguf.GetInts("floats"), std::nullopt);
  EXPECT_EQ(gguf.GetInts("u8"), std::nullopt);
  EXPECT_EQ(gguf.GetInts("strings"), std::nullopt);
  EXPECT_EQ(gguf.GetStrings("ints"), std::nullopt);
  EXPECT_EQ(gguf.GetInt("nothing"), std::nullopt);
}

TEST_F(GgufTest, TensorsHaveTheirShapesAndBytes) {
  for (const uint32_t version : {2u, 3u}) {
    GgufWriter writer = Small();
    writer.version = version;
    const auto file = Open(writer);
    ASSERT_TRUE(file.ok()) << file.status();
    const std::vector<StoredTensor>& tensors = (*file)->tensors();
    ASSERT_EQ(tensors.size(), 2u);
    EXPECT_EQ(tensors[0].name, "first");
    EXPECT_EQ(tensors[0].type, StoredType::kF32);
    EXPECT_THAT(tensors[0].shape, ElementsAre(2, 3));
    EXPECT_EQ(tensors[0].bytes, 24u);
    float last;
    std::memcpy(&last, BytesOfTensor(tensors[0]).data() + 20, sizeof(last));
    EXPECT_EQ(last, 6);
    EXPECT_EQ(tensors[1].type, StoredType::kQ8_0);
    EXPECT_EQ(tensors[1].bytes, 34u);
    EXPECT_EQ(BytesOfTensor(tensors[1])[33], 'x');
    EXPECT_EQ(tensors[1].offset, writer.Bytes().size() - 34);
  }
}

TEST_F(GgufTest, AnotherAlignment) {
  GgufWriter writer;
  writer.alignment = 128;
  writer.Uint32("general.alignment", 128).Tensor("a", {2}, kGgmlF32, Floats({1, 2}));
  writer.Tensor("b", {1}, kGgmlF32, Floats({3}));
  const auto file = Open(writer);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors()[1].offset % 128, 0u);
  float value;
  std::memcpy(&value, BytesOfTensor((*file)->tensors()[1]).data(), sizeof(value));
  EXPECT_EQ(value, 3);
}

TEST_F(GgufTest, BadFiles) {
  struct Case {
    const char* part;
    StatusCode code;
    std::function<void(GgufWriter&)> change;
  };
  constexpr uint64_t kHuge = uint64_t{1} << 61;
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  const StatusCode invalid = StatusCode::kInvalidArgument;
  const StatusCode unsupported = StatusCode::kUnimplemented;
  const std::string data = Floats({1, 2, 3, 4});
  const Case cases[] = {
      {"is not a GGUF file", invalid, [](auto& w) { w.magic = "GGML"; }},
      {"version 1; supported are 2 and 3", unsupported, [](auto& w) { w.version = 1; }},
      {"version 4", unsupported, [](auto& w) { w.version = 4; }},
      {"big-endian", unsupported, [](auto& w) { w.version = 3u << 24; }},
      {"keys", invalid, [](auto& w) { w.key_count = kHuge; }},
      {"tensors", invalid, [](auto& w) { w.tensor_count = kMost; }},
      {"truncated", invalid, [](auto& w) { w.key_count = 20; }},
      {"'k' has the unknown type 13", invalid, [](auto& w) { w.Key("k", 13, "........"); }},
      {"a key has 0 bytes", invalid, [](auto& w) { w.Uint32("", 1); }},
      {"'list' twice", invalid, [](auto& w) { w.Uint32("list", 1); }},
      {"bool other than", invalid, [](auto& w) { w.Key("k", kMetaBool, "\2"); }},
      {"claims 2305843009213693952", invalid,
       [](auto& w) { w.Array("k", kMetaString, kHuge, ""); }},
      {"claims", invalid, [](auto& w) { w.Array("k", kMetaFloat64, kHuge, ""); }},
      {"claims", invalid, [](auto& w) { w.Array("k", kMetaUint8, kMost, "abc"); }},
      {"truncated", invalid, [](auto& w) { w.Key("k", kMetaString, Raw(kMost) + "abc"); }},
      {"an array of arrays", unsupported,
       [](auto& w) { w.Array("k", kMetaArray, 1, Raw(kMetaUint8) + Raw<uint64_t>(0)); }},
      {"general.alignment is 0", invalid, [](auto& w) { w.Uint32("general.alignment", 0); }},
      {"general.alignment is 24", invalid, [](auto& w) { w.Uint32("general.alignment", 24); }},
      {"general.alignment is 4;", invalid, [](auto& w) { w.Uint32("general.alignment", 4); }},
      {"general.alignment is 2147483648", invalid,
       [](auto& w) { w.Uint32("general.alignment", 1u << 31); }},
      {"general.alignment is no integer", invalid,
       [](auto& w) { w.String("general.alignment", "32"); }},
      {"'first' twice", invalid, [&](auto& w) { w.Tensor("first", {4}, kGgmlF32, data); }},
      {"'t' has 0 dimensions", invalid, [&](auto& w) { w.Tensor("t", {}, kGgmlF32, data); }},
      {"'t' has 5 dimensions", invalid,
       [&](auto& w) {
         w.Tensor("t", {1, 1, 1, 1, 4}, kGgmlF32, data);
       }},
      {"F32 [0, 4]", invalid,
       [&](auto& w) {
         w.Tensor("t", {0, 4}, kGgmlF32, data);
       }},
      {"F32 [-1]", invalid, [&](auto& w) { w.Tensor("t", {kMost}, kGgmlF32, data); }},
      {"'t' has the shape", invalid,
       [&](auto& w) {
         w.Tensor("t", {kHuge, kHuge}, kGgmlF32, data);
       }},
      {"'t' has the shape", invalid,
       [&](auto& w) {
         w.Tensor("t", {kHuge, 4}, kGgmlF32, data);
       }},
      {"whole blocks of 32", invalid,
       [&](auto& w) {
         w.Tensor("t", {2, 16}, kGgmlQ4_0, std::string(18, 'x'));
       }},
      {"Q2_K (ggml's 10); supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, "
       "Q6_K",
       unsupported, [&](auto& w) { w.Tensor("t", {256}, 10, std::string(84, 'x')); }},
      {"whole blocks of 256", invalid,
       [&](auto& w) {
         w.Tensor("t", {8, 32}, kGgmlQ6K, std::string(210, 'x'));
       }},
      {"runs past the file's end", invalid,
       [&](auto& w) {
         w.Tensor("t", {2, 256}, kGgmlQ4K, std::string(287, 'x'));
       }},
      {"(ggml's 4)", unsupported, [&](auto& w) { w.Tensor("t", {256}, 4, data); }},
      {"runs past the file's end", invalid,
       [&](auto& w) { w.TensorEntry("t", {4}, kGgmlF32, 128); }},
      {"runs past the file's end", invalid,
       [&](auto& w) { w.TensorEntry("t", {4}, kGgmlF32, kMost - 31); }},
      {"no multiple of the alignment 32", invalid,
       [&](auto& w) { w.TensorEntry("t", {1}, kGgmlF32, 4); }},
      {"'t' and 'first' overlap", invalid, [&](auto& w) { w.TensorEntry("t", {1}, kGgmlF32, 0); }},
      {"a tensor's name has 0 bytes", invalid, [&](auto& w) { w.Tensor("", {4}, kGgmlF32, data); }},
      {"'evil\\nname\\x01'", invalid,
       [&](auto& w) { w.Tensor("evil\nname\x01", {0}, kGgmlF32, data); }},
  };
  for (const Case& test : cases) {
    GgufWriter writer = Small();
    test.change(writer);
    EXPECT_ERROR(Open(writer), test.code, test.part);
  }
}

TEST_F(GgufTest, TruncatedAnywhere) {
  const std::string bytes = Small().Bytes();
  ASSERT_TRUE(Open(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_ERROR(Open(bytes.substr(0, size)), StatusCode::kInvalidArgument, "test.gguf: ");
  }
}

// Every value is read after a flip that was not noticed: none may lie outside the file.
TEST_F(GgufTest, AnyFlippedByteIsReadOrRefused) {
  const std::string bytes = Small().Bytes();
  int opened = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const unsigned char mask : {0x01, 0x80, 0x7f, 0xff}) {
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ mask);
      const auto file = Open(flipped);
      if (!file.ok()) continue;
      ++opened;
      for (const std::string_view key : (*file)->keys()) {
        (*file)->GetInt(key);
        (*file)->GetString(key);
        (*file)->GetStrings(key);
        (*file)->GetInts(key);
        (*file)->GetFloats(key);
      }
      for (const StoredTensor& tensor : (*file)->tensors()) {
        EXPECT_LE(tensor.offset + tensor.bytes, bytes.size());
      }
    }
  }
  EXPECT_GT(opened, 0);
}

TEST_F(GgufTest, NoRegularFile) {
  EXPECT_ERROR(GgufFile::Open(folder_.File("none.gguf")), StatusCode::kNotFound, "none.gguf");
  EXPECT_ERROR(GgufFile::Open(folder_.path()), StatusCode::kInvalidArgument, "is a directory");
  EXPECT_ERROR(GgufFile::Open("/dev/null"), StatusCode::kInvalidArgument, "not a regular file");
}

// Claims are checked against the file's size before memory is taken for them.
TEST_F(GgufTest, MemoryIsBoundedByTheFile) {
  const auto most_resident = [] {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;  // KiB
  };
  const long before = most_resident();
  GgufWriter writer = Small();
  writer.key_count = 60000;
  writer.tensor_count = 60000;
  EXPECT_FALSE(Open(writer).ok());
  GgufWriter arrays = Small();
  arrays.Array("k", kMetaString, uint64_t{1} << 40, std::string(1 << 10, '\0'));
  EXPECT_FALSE(Open(arrays).ok());
  EXPECT_LT(most_resident() - before, 64 << 10);
}

}  // namespace
}  // namespace sirocco
