// What is written is a model: it opens, and is the same for the same seed.
#include "server/bench/write_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "engine/model/tensor_rows.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string NewFolder(const std::string& name) {
  const fs::path folder = fs::path(::testing::TempDir()) / ("write_model_" + name);
  fs::remove_all(folder);
  return folder.string();
}

absl::StatusOr<WrittenModel> Write(const std::string& golden, const std::string& folder,
                                   uint64_t seed = 1, uint64_t shard_bytes = 20'000) {
  return WriteRandomModel({.config = GoldenPath(golden + "/config.json"),
                           .directory = folder,
                           .seed = seed,
                           .shard_bytes = shard_bytes},
                          nullptr);
}

std::map<std::string, std::string> FilesOf(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    files[entry.path().filename().string()] = std::string(std::istreambuf_iterator<char>(in), {});
  }
  return files;
}

std::vector<float> FirstRow(const TensorSource& tensors, const std::string& name) {
  const StoredTensor* tensor = tensors.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  std::vector<float> row(RowElements(*tensor));
  EXPECT_TRUE(ReadRows(*tensor, 0, row).ok());
  return row;
}

TEST(WriteModelTest, WhatIsWrittenOpensAsAModelInShards) {
  for (const char* golden : {"llama_tied", "qwen2", "qwen3", "gemma3"}) {
    SCOPED_TRACE(golden);
    const std::string folder = NewFolder(golden);
    const auto written = Write(golden, folder);
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_GT(written->shards, 2);
    EXPECT_EQ(written->weight_bytes, 2 * written->parameters);
    const auto files = OpenModel(folder);
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(files->format, "safetensors");
    uint64_t elements = 0;
    for (const StoredTensor& tensor : files->tensors->tensors()) {
      uint64_t of_tensor = 1;
      for (const int64_t extent : tensor.shape) of_tensor *= static_cast<uint64_t>(extent);
      elements += of_tensor;
      EXPECT_EQ(tensor.type, StoredType::kBF16);
    }
    EXPECT_EQ(elements, written->parameters);
    // Whatever the file holds of a norm, it multiplies by 1.
    for (const float weight : FirstRow(*files->tensors, "model.norm.weight")) {
      EXPECT_EQ(weight, 1.0f);
    }
    double squares = 0;
    const std::vector<float> row = FirstRow(*files->tensors, "model.layers.0.mlp.up_proj.weight");
    for (const float weight : row) squares += weight * weight;
    EXPECT_GT(squares, 0.1);
    EXPECT_LT(squares, 10);
  }
}

TEST(WriteModelTest, ItsTokenizerSpellsEveryId) {
  const std::string folder = NewFolder("tokenizer");
  ASSERT_TRUE(Write("llama_tied", folder).ok());
  const auto tokenizer = OpenTokenizer(folder);
  ASSERT_TRUE(tokenizer.ok() && *tokenizer != nullptr) << tokenizer.status();
  const auto files = OpenModel(folder);
  ASSERT_TRUE(files.ok()) << files.status();
  const int32_t vocab_size = files->descriptor.vocab_size;
  EXPECT_EQ((*tokenizer)->vocab_size(), vocab_size);
  EXPECT_EQ((*tokenizer)->end_token_ids(), std::vector<int32_t>{vocab_size - 1});
  EXPECT_TRUE((*tokenizer)->chat_template().has_value());
  std::map<std::string, int32_t> seen;
  for (int32_t id = 0; id < vocab_size; ++id) {
    const std::string bytes((*tokenizer)->TokenBytes(id));
    EXPECT_FALSE(bytes.empty()) << id;
    EXPECT_TRUE(seen.emplace(bytes, id).second) << id;
  }
  const std::string text = "Wind over the Gr\xC3\xBC\xC3\x9F-Gott \xE5\x8D\x97";
  const auto ids = (*tokenizer)->Encode(text, {});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->size(), text.size());
  EXPECT_EQ((*tokenizer)->Decode(*ids, true), text);
}

TEST(WriteModelTest, TheSameSeedWritesTheSameFiles) {
  const std::string first = NewFolder("first");
  const std::string second = NewFolder("second");
  const std::string other = NewFolder("other");
  ASSERT_TRUE(Write("llama_tied", first, 7).ok());
  ASSERT_TRUE(Write("llama_tied", second, 7).ok());
  ASSERT_TRUE(Write("llama_tied", other, 8).ok());
  const auto files = FilesOf(first);
  EXPECT_EQ(files, FilesOf(second));
  EXPECT_NE(files, FilesOf(other));
  EXPECT_EQ(files.count("model.safetensors.index.json"), 1u);
}

TEST(WriteModelTest, NothingIsOverwritten) {
  const std::string folder = NewFolder("there");
  ASSERT_TRUE(Write("llama_tied", folder).ok());
  const auto before = FilesOf(folder);
  const absl::Status again = Write("llama_tied", folder, 2).status();
  EXPECT_EQ(again.code(), absl::StatusCode::kFailedPrecondition);  // exit status 2
  EXPECT_THAT(std::string(again.message()), AllOf(HasSubstr(folder), HasSubstr("there already")));
  EXPECT_EQ(FilesOf(folder), before);
  const std::string file = folder + "/config.json";
  EXPECT_EQ(Write("llama_tied", file).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Write("llama_tied", file + "/below").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(WriteModelTest, AnEmptyFolderIsTaken) {
  const std::string folder = NewFolder("empty");
  fs::create_directories(folder);
  EXPECT_TRUE(Write("llama_tied", folder, 1, uint64_t{1} << 40).ok());
  EXPECT_EQ(FilesOf(folder).count("model-00001-of-00001.safetensors"), 1u);
}

TEST(WriteModelTest, AConfigurationThatIsNoneMakesNoFolder) {
  const std::string folder = NewFolder("none");
  EXPECT_EQ(Write("nowhere", folder).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(folder));
}

}  // namespace
}  // namespace sirocco
