// The goldens' files, spoilt at every place: what comes of it is a model or one line, never a
// crash, and of a model every tensor can be read.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "engine/model/model_files.h"
#include "engine/model/tensor_rows.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/gguf_models.h"
#include "tests/engine/model/test_files.h"
#include "tests/testing/json_mutations.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using nlohmann::json;

// How often a spoilt model was still one, and was none.
struct Outcomes {
  int opened = 0;
  int refused = 0;
};

void ReadEnds(const StoredTensor& tensor) {
  const int64_t rows = tensor.shape.empty() ? 1 : tensor.shape.front();
  std::vector<float> row(static_cast<size_t>(RowElements(tensor)));
  if (tensor.shape.size() == 1) row.resize(static_cast<size_t>(rows));
  for (const int64_t first : {int64_t{0}, tensor.shape.size() == 1 ? 0 : rows - 1}) {
    EXPECT_TRUE(ReadRows(tensor, first, row).ok()) << tensor.name;
  }
}

void Try(const std::string& path, const std::string& what, Outcomes* outcomes) {
  const absl::StatusOr<ModelFiles> files = OpenModel(path);
  if (files.ok()) {
    ++outcomes->opened;
    for (const StoredTensor& tensor : files->tensors->tensors()) ReadEnds(tensor);
    return;
  }
  ++outcomes->refused;
  const std::string message(files.status().message());
  const absl::StatusCode code = files.status().code();
  EXPECT_TRUE(code == absl::StatusCode::kInvalidArgument ||
              code == absl::StatusCode::kUnimplemented || code == absl::StatusCode::kNotFound)
      << what << ": " << files.status();
  EXPECT_EQ(message.compare(0, path.size(), path), 0) << what << ": " << message;
  EXPECT_TRUE(std::none_of(message.begin(), message.end(),
                           [](char c) { return static_cast<unsigned char>(c) < ' '; }))
      << what << ": " << message;
  EXPECT_LT(message.size(), path.size() + 1000) << what;
}

class MutationTest : public ::testing::TestWithParam<const char*> {
 protected:
  MutationTest() {
    for (const char* name : {"config.json", "generation_config.json", "model.safetensors"}) {
      bytes_[name] = ReadBytes(Golden(name));
      folder_.Write(name, bytes_[name]);
    }
    uint64_t size = 0;
    std::memcpy(&size, bytes_["model.safetensors"].data(), sizeof(size));
    header_end_ = sizeof(size) + size;
  }

  std::string Golden(const std::string& name) const {
    return GoldenPath(std::string(GetParam()) + "/" + name);
  }
  // Bytes of the file up to `end`, about kMostFlips of them, one at a time, flipped in one of
  // several ways.
  void FlipBytes(const std::string& file, const std::string& model, size_t end,
                 Outcomes* outcomes) {
    constexpr unsigned char kMasks[] = {0x01, 0x80, 0x20, 0xff, 0x04};
    const std::string bytes = ReadBytes(file);
    std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
    end = std::min(end, bytes.size());
    for (size_t i = 0, n = 0; i < end; i += 1 + end / kMostFlips, ++n) {
      const auto put = [&](char byte) {
        stream.seekp(static_cast<std::streamoff>(i));
        stream.put(byte).flush();
      };
      put(static_cast<char>(bytes[i] ^ kMasks[n % std::size(kMasks)]));
      Try(model, file + " flipped at " + std::to_string(i), outcomes);
      put(bytes[i]);
    }
  }

  static constexpr size_t kMostFlips = 1000;

  std::map<std::string, std::string> bytes_;
  uint64_t header_end_ = 0;
  TestFolder folder_;
};

TEST_P(MutationTest, SettingsOfAnyKind) {
  for (const char* name : {"config.json", "generation_config.json"}) {
    Outcomes outcomes;
    ForEachMutation(json::parse(bytes_[name]), 3, 50,
                    [&](const json& mutated, const std::string& what) {
                      folder_.Write(name, mutated.dump());
                      Try(folder_.path(), what, &outcomes);
                    });
    folder_.Write(name, bytes_[name]);
    EXPECT_GT(outcomes.opened, 0);  // settings that do not matter, or not so
    EXPECT_GT(outcomes.refused, 20);
  }
}

TEST_P(MutationTest, HeadersOfAnyKind) {
  const std::string& whole = bytes_["model.safetensors"];
  const std::string data = whole.substr(header_end_);
  Outcomes outcomes;
  ForEachMutation(json::parse(whole.substr(8, header_end_ - 8)), 3, 3,
                  [&](const json& mutated, const std::string& what) {
                    const std::string header = mutated.dump();
                    folder_.Write("model.safetensors",
                                  Raw<uint64_t>(header.size()) + header + data);
                    Try(folder_.path(), what, &outcomes);
                  });
  EXPECT_GT(outcomes.refused, 100);
}

TEST_P(MutationTest, FlippedBytes) {
  Outcomes outcomes;
  FlipBytes(folder_.File("config.json"), folder_.path(), SIZE_MAX, &outcomes);
  FlipBytes(folder_.File("model.safetensors"), folder_.path(), header_end_, &outcomes);
  EXPECT_GT(outcomes.opened, 0);
  EXPECT_GT(outcomes.refused, 500);
}

TEST_P(MutationTest, Truncated) {
  for (const auto& [name, bytes] : bytes_) {
    Outcomes outcomes;
    for (size_t i = 0; i < 50; ++i) {
      folder_.Write(name, bytes.substr(0, bytes.size() * i / 50));
      Try(folder_.path(), name + " truncated", &outcomes);
    }
    EXPECT_EQ(outcomes.opened, 0) << name;
    folder_.Write(name, bytes);
  }
}

TEST_P(MutationTest, Gguf) {
  const std::string bytes = MakeGgufModel(GetParam(), kGgmlQ8_0).writer.Bytes();
  const std::string path = folder_.Write("model.gguf", bytes);
  Outcomes flipped;
  FlipBytes(path, path, 4000, &flipped);
  EXPECT_GT(flipped.opened, 0);
  EXPECT_GT(flipped.refused, 200);
  Outcomes truncated;
  for (size_t i = 0; i < 50; ++i) {
    folder_.Write("model.gguf", bytes.substr(0, bytes.size() * i / 50));
    Try(path, "truncated", &truncated);
  }
  EXPECT_EQ(truncated.opened, 0);
}

INSTANTIATE_TEST_SUITE_P(Goldens, MutationTest, ::testing::Values("llama3_rope", "gemma3"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sirocco
