#include "engine/model/safetensors.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/gguf_writer.h"
#include "tests/engine/model/stored_bytes.h"
#include "tests/engine/model/test_files.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;
using Source = std::shared_ptr<const TensorSource>;

std::string File(const std::string& header, const std::string& data) {
  return Raw<uint64_t>(header.size()) + header + data;
}

class SafetensorsTest : public ::testing::Test {
 protected:
  absl::StatusOr<Source> Open(const std::string& bytes) {
    return OpenSafetensors(folder_.Write("test.safetensors", bytes));
  }
  absl::StatusOr<Source> Open(const std::string& header, const std::string& data) {
    return Open(File(header, data));
  }

  TestFolder folder_;
};

constexpr char kTwo[] =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
    R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";

TEST_F(SafetensorsTest, Tensors) {
  const auto source = Open(kTwo, Raw(2.5f) + std::string(12, 'x'));
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->tensors().size(), 2u);
  const StoredTensor* a = (*source)->Find("a");
  const StoredTensor* b = (*source)->Find("b");
  ASSERT_TRUE(a && b);
  float value;
  std::memcpy(&value, BytesOfTensor(*a).data(), sizeof(value));
  EXPECT_EQ(value, 2.5f);
  EXPECT_EQ(b->type, StoredType::kBF16);
  EXPECT_THAT(b->shape, ElementsAre(2, 3));
  EXPECT_EQ(b->bytes, 12u);
  EXPECT_EQ(BytesOfTensor(*b)[11], 'x');
  EXPECT_EQ((*source)->Find("c"), nullptr);
}

TEST_F(SafetensorsTest, BadHeaders) {
  const auto entry = [](const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
    return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
           "}}";
  };
  const StatusCode invalid = StatusCode::kInvalidArgument;
  const std::string deep(1000000, '[');
  struct Case {
    std::string header;
    const char* part;
    StatusCode code;
  };
  const Case cases[] = {
      {"", "not valid JSON", invalid},
      {"[]", "no JSON object", invalid},
      {"{\"t\":1}", "described by no object", invalid},
      {"{\"t\":{}}", "'t' has no dtype", invalid},
      {"{\"t\":" + deep, "nests deeper than", invalid},
      {"{\"a\":{},\"a\":{}}", "'a' twice", invalid},
      {"{\"a\":1e999}", "not valid JSON", invalid},
      {"{\"\xff\":1}", "not valid JSON", invalid},
      {entry("\"I64\"", "[2]", "[0,16]"), "'I64'; supported are F32, F16, BF16",
       StatusCode::kUnimplemented},
      {entry("\"F8_E4M3\"", "[16]", "[0,16]"), "F8_E4M3", StatusCode::kUnimplemented},
      {entry("7", "[4]", "[0,16]"), "no dtype", invalid},
      {entry("\"F32\"", "[4.0]", "[0,16]"), "shape is no list", invalid},
      {entry("\"F32\"", "[-4]", "[0,16]"), "shape is no list", invalid},
      {entry("\"F32\"", "[1,1,1,1,1,1,1,1,4]", "[0,16]"), "shape is no list", invalid},
      {entry("\"F32\"", "null", "[0,16]"), "shape is no list", invalid},
      {entry("\"F32\"", "[0]", "[0,0]"), "must be positive", invalid},
      {entry("\"F32\"", "[4294967296,4294967296]", "[0,16]"), "below 2^63", invalid},
      {entry("\"F32\"", "[4]", "[0]"), "begin <= end", invalid},
      {entry("\"F32\"", "[4]", "[16,0]"), "begin <= end", invalid},
      {entry("\"F32\"", "[4]", "[0,17]"), "begin <= end <= 16", invalid},
      {entry("\"F32\"", "[4]", "[0,18446744073709551615]"), "data_offsets", invalid},
      {entry("\"F32\"", "[4]", "[0,12]"), "takes 16 bytes", invalid},
      {entry("\"F32\"", "[3]", "[0,12]"), "its tensors take 12", invalid},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       "'a' and 'b' overlap", invalid},
  };
  for (const Case& test : cases) {
    EXPECT_ERROR(Open(test.header, std::string(16, 'x')), test.code, test.part);
  }
  EXPECT_ERROR(Open(Raw<uint64_t>(uint64_t{1} << 63) + "{}"), invalid, "claims a header of");
}

TEST_F(SafetensorsTest, TruncatedAnywhere) {
  const std::string bytes = File(kTwo, std::string(16, 'x'));
  ASSERT_TRUE(Open(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_ERROR(Open(bytes.substr(0, size)), StatusCode::kInvalidArgument, "test.safetensors: ");
  }
}

TEST_F(SafetensorsTest, AnyFlippedByteIsReadOrRefused) {
  const std::string bytes = File(kTwo, std::string(16, 'x'));
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const unsigned char mask : {0x01, 0x04, 0x80, 0xff}) {
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ mask);
      const auto source = Open(flipped);
      if (!source.ok()) continue;
      for (const StoredTensor& tensor : (*source)->tensors()) {
        EXPECT_LE(tensor.offset + tensor.bytes, bytes.size());
      }
    }
  }
}

constexpr char kOne[] = R"({"NAME":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

class ShardedTest : public SafetensorsTest {
 protected:
  void WriteShard(const std::string& file, const std::string& tensor, float value) {
    std::string header = kOne;
    header.replace(header.find("NAME"), 4, tensor);
    folder_.Write(file, File(header, Raw(value)));
  }
  absl::StatusOr<Source> OpenIndex(const std::string& map) {
    folder_.Write("model.safetensors.index.json", R"({"metadata":{},"weight_map":)" + map + "}");
    return OpenShardedSafetensors(folder_.path());
  }
};

TEST_F(ShardedTest, TensorsOfAllFiles) {
  WriteShard("one.safetensors", "a", 1);
  WriteShard("two.safetensors", "b", 2);
  const auto source = OpenIndex(R"({"a":"one.safetensors","b":"two.safetensors"})");
  ASSERT_TRUE(source.ok()) << source.status();
  float value;
  std::memcpy(&value, BytesOfTensor(*(*source)->Find("b")).data(), sizeof(value));
  EXPECT_EQ(value, 2);
  EXPECT_EQ((*source)->Find("b")->file, folder_.File("two.safetensors"));
}

// As Hugging Face's cache has it: the names are links to blobs elsewhere.
TEST_F(ShardedTest, LinksAreFollowed) {
  TestFolder blobs;
  std::string header = kOne;
  header.replace(header.find("NAME"), 4, "a");
  std::filesystem::create_symlink(blobs.Write("blob", File(header, Raw(1.0f))),
                                  folder_.File("one.safetensors"));
  EXPECT_TRUE(OpenIndex(R"({"a":"one.safetensors"})").ok());
}

TEST_F(ShardedTest, BadIndexes) {
  const StatusCode invalid = StatusCode::kInvalidArgument;
  WriteShard("one.safetensors", "a", 1);
  WriteShard("two.safetensors", "a", 2);
  for (const char* name : {"../one.safetensors", "/etc/passwd", "x/one.safetensors", "..", ".", "",
                           "one.safetensors\\u0000"}) {
    EXPECT_ERROR(OpenIndex(std::string(R"({"a":")") + name + R"("})"), invalid, "plain file names");
  }
  EXPECT_ERROR(OpenIndex("{\"a\":1}"), invalid, "plain file names");
  EXPECT_ERROR(OpenIndex("{}"), invalid, "no weight_map");
  EXPECT_ERROR(OpenIndex("[]"), invalid, "no weight_map");
  EXPECT_ERROR(OpenIndex(R"({"a":"none.safetensors"})"), StatusCode::kNotFound, "none.safetensors");
  EXPECT_ERROR(OpenIndex(R"({"a":"one.safetensors","b":"one.safetensors"})"), invalid,
               "places the tensor 'b'");
  EXPECT_ERROR(OpenIndex(R"({"a":"one.safetensors","b":"two.safetensors"})"), invalid,
               "does not place there");
  EXPECT_ERROR(OpenIndex(R"({"b":"one.safetensors"})"), invalid, "does not place there");
}

}  // namespace
}  // namespace sirocco
