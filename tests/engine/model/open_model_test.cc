#include <filesystem>
#include <functional>

#include "engine/model/model_files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/gguf_writer.h"
#include "tests/engine/model/test_files.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using absl::StatusCode;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;

// A copy of a golden, to be spoilt.
class OpenModelTest : public ::testing::Test {
 protected:
  void Copy(const std::string& golden) {
    for (const char* file : {"config.json", "generation_config.json", "model.safetensors"}) {
      folder_.Write(file, ReadBytes(GoldenPath(golden + "/" + file)));
    }
  }
  void Change(const std::string& file, const std::function<void(json&)>& change) {
    json content = json::parse(ReadBytes(folder_.File(file)));
    change(content);
    folder_.Write(file, content.dump());
  }
  // Rewrites the header of model.safetensors; the data stays.
  void ChangeHeader(const std::function<void(json&)>& change) {
    const std::string bytes = ReadBytes(folder_.File("model.safetensors"));
    uint64_t size;
    std::memcpy(&size, bytes.data(), sizeof(size));
    json header = json::parse(bytes.substr(8, size));
    change(header);
    const std::string text = header.dump();
    folder_.Write("model.safetensors", Raw<uint64_t>(text.size()) + text + bytes.substr(8 + size));
  }
  absl::StatusOr<ModelFiles> Open() { return OpenModel(folder_.path()); }

  TestFolder folder_;
};

TEST_F(OpenModelTest, Goldens) {
  for (const std::string golden : {"llama_tied", "llama3_rope", "qwen2", "qwen3", "gemma3"}) {
    const auto files = OpenModel(GoldenPath(golden));
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(files->name, golden);
    EXPECT_EQ(files->format, "safetensors");
    EXPECT_THAT(files->end_token_ids, ElementsAre(2));
    EXPECT_EQ(files->descriptor.tied_head, golden != "llama3_rope" && golden != "qwen3");
    EXPECT_EQ(files->generation.temperature, std::nullopt);
    EXPECT_EQ(OpenModel(GoldenPath(golden) + "/")->name, golden);
  }
}

TEST_F(OpenModelTest, PathsThatAreNoModel) {
  EXPECT_ERROR(OpenModel(""), StatusCode::kInvalidArgument, "no model is named");
  EXPECT_ERROR(OpenModel(folder_.File("none")), StatusCode::kNotFound, "none: no such file");
  EXPECT_ERROR(Open(), StatusCode::kNotFound, "has no config.json");
  const std::string text = folder_.Write("notes.txt", "hello, this is no model");
  EXPECT_ERROR(OpenModel(text), StatusCode::kInvalidArgument, "is not a GGUF file");
  EXPECT_ERROR(OpenModel(text + "/below"), StatusCode::kNotFound, "no such file");
  folder_.Write("model-Q4.gguf", "GGUF");
  EXPECT_ERROR(Open(), StatusCode::kNotFound,
               "pass the file itself: " + folder_.path() + "/model-Q4.gguf");
}

// The configuration alone is refused with the same words as the whole model.
TEST_F(OpenModelTest, DescriptorOfWhatIsNoModel) {
  const auto expect_same = [](const std::string& path) {
    const absl::Status status = OpenDescriptor(path).status();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(status, OpenModel(path).status());
  };
  expect_same("");
  expect_same(folder_.File("none"));
  expect_same(folder_.Write("notes.txt", "hello, this is no model"));
  expect_same(folder_.path());
  folder_.Write("model-Q4.gguf", "GGUF");
  expect_same(folder_.path());  // the file that could be passed is named
  folder_.Write("config.json", R"({"model_type": "mamba"})");
  expect_same(folder_.path());
}

TEST_F(OpenModelTest, DescriptorWithoutWeights) {
  Copy("llama_tied");
  std::filesystem::remove(folder_.File("model.safetensors"));
  const auto descriptor = OpenDescriptor(folder_.path());
  ASSERT_TRUE(descriptor.ok()) << descriptor.status();
  EXPECT_EQ(descriptor->vocab_size, 384);
}

TEST_F(OpenModelTest, WithoutWeights) {
  Copy("llama_tied");
  std::filesystem::remove(folder_.File("model.safetensors"));
  EXPECT_ERROR(Open(), StatusCode::kNotFound,
               "has no model.safetensors or model.safetensors.index.json");
  folder_.Write("pytorch_model.bin", "");
  EXPECT_ERROR(Open(), StatusCode::kNotFound, "not from .bin files");
}

TEST_F(OpenModelTest, LinksAreFollowed) {
  for (const char* file : {"config.json", "model.safetensors"}) {
    std::filesystem::create_symlink(
        std::filesystem::absolute(GoldenPath(std::string("llama_tied/") + file)),
        folder_.File(file));
  }
  EXPECT_TRUE(Open().ok()) << Open().status();
}

TEST_F(OpenModelTest, LinksThatLeadNowhereAreErrors) {
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors"}) {
    Copy("llama_tied");
    std::filesystem::remove(folder_.File(name));
    std::filesystem::create_symlink("nothing", folder_.File(name));
    EXPECT_ERROR(Open(), StatusCode::kNotFound, std::string(name) + ": no such file");
    std::filesystem::remove(folder_.File(name));
    std::filesystem::create_symlink(name, folder_.File(name));
    EXPECT_ERROR(Open(), StatusCode::kFailedPrecondition, std::string(name) + ": Too many levels");
    std::filesystem::remove(folder_.File(name));
  }
}

TEST_F(OpenModelTest, EndTokensOfTheNearestFile) {
  Copy("llama_tied");
  Change("config.json", [](json& config) { config["eos_token_id"] = 7; });
  EXPECT_THAT(Open()->end_token_ids, ElementsAre(2));  // generation_config.json's
  Change("generation_config.json", [](json& g) { g["eos_token_id"] = {5, 3, 5}; });
  EXPECT_THAT(Open()->end_token_ids, ElementsAre(5, 3));
  Change("generation_config.json", [](json& g) { g["eos_token_id"] = nullptr; });
  EXPECT_THAT(Open()->end_token_ids, ElementsAre(7));
  std::filesystem::remove(folder_.File("generation_config.json"));
  EXPECT_THAT(Open()->end_token_ids, ElementsAre(7));
  Change("config.json", [](json& config) { config.erase("eos_token_id"); });
  EXPECT_THAT(Open()->end_token_ids, IsEmpty());
}

TEST_F(OpenModelTest, GenerationDefaults) {
  Copy("llama_tied");
  Change("generation_config.json", [](json& g) {
    g["do_sample"] = true;
    g["temperature"] = 0.6;
    g["top_k"] = 20;
    g["top_p"] = 1;
    g["min_p"] = 0.05;
    g["repetition_penalty"] = 1.1;
    g["no_repeat_ngram_size"] = 3;
  });
  const auto files = Open();
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(files->generation.do_sample, Optional(true));
  EXPECT_THAT(files->generation.temperature, Optional(0.6f));
  EXPECT_THAT(files->generation.top_k, Optional(20));
  EXPECT_THAT(files->generation.top_p, Optional(1.0f));
  EXPECT_THAT(files->generation.min_p, Optional(0.05f));
  EXPECT_THAT(files->generation.repetition_penalty, Optional(1.1f));
  EXPECT_THAT(files->generation.no_repeat_ngram_size, Optional(3));
}

TEST_F(OpenModelTest, BadGenerationSettings) {
  const std::pair<const char*, json> cases[] = {
      {"do_sample", 1},
      {"temperature", -0.1},
      {"temperature", "1"},
      {"temperature", 101},
      {"top_k", -2},
      {"top_k", 2.5},
      {"top_k", 3000000000},
      {"top_p", 0},
      {"top_p", 1.01},
      {"min_p", -0.5},
      {"min_p", 2},
      {"repetition_penalty", 0},
      {"eos_token_id", 384},
      {"eos_token_id", -1},
      {"eos_token_id", {2, 384}},
      {"eos_token_id", "2"},
      {"eos_token_id", true},
      {"eos_token_id", 2.0},
      {"no_repeat_ngram_size", -1},
  };
  for (const auto& [key, value] : cases) {
    Copy("llama_tied");
    Change("generation_config.json", [&](json& g) { g[key] = value; });
    EXPECT_ERROR(Open(), StatusCode::kInvalidArgument,
                 std::string("generation_config.json: ") + key);
  }
}

TEST_F(OpenModelTest, TensorsMustBeThoseOfTheSettings) {
  Copy("llama_tied");
  Change("config.json", [](json& config) { config["intermediate_size"] = 192; });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument, "by the model's settings it is [192, 64]");
  Copy("llama_tied");
  Change("config.json", [](json& config) { config["num_hidden_layers"] = 5; });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument,
               "the tensor 'model.layers.4.input_layernorm.weight' of shape [64] is missing");
  Copy("llama_tied");
  Change("config.json", [](json& config) { config["num_hidden_layers"] = 3; });
  EXPECT_ERROR(Open(), StatusCode::kUnimplemented, "holds the tensor 'model.layers.3.");
  Copy("llama_tied");
  Change("config.json", [](json& config) { config["tie_word_embeddings"] = false; });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument, "'lm_head.weight'");
  Copy("qwen2");
  ChangeHeader([](json& header) {
    header["model.layers.0.self_attn.q_norm.weight"] =
        header["model.layers.0.self_attn.q_proj.bias"];
    header.erase("model.layers.0.self_attn.q_proj.bias");
  });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument, "q_proj.bias");
}

// A model with image parts: its language part's tensors have names of their own.
TEST_F(OpenModelTest, ImagePartsAreNamed) {
  Copy("gemma3");
  Change("config.json", [](json& config) {
    config["model_type"] = "gemma3";
    config["architectures"] = {"Gemma3ForConditionalGeneration"};
  });
  EXPECT_ERROR(Open(), StatusCode::kUnimplemented, "model_type is 'gemma3'; supported are llama, ");
  Copy("gemma3");
  ChangeHeader([](json& header) {
    header["vision_tower.patch_embedding.weight"] = header["model.norm.weight"];
    header.erase("model.norm.weight");
  });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument,
               "'model.norm.weight' of shape [64] is missing");
}

TEST_F(OpenModelTest, QueryAndKeyNormsMustBeThere) {
  for (const char* golden : {"gemma3", "qwen3"}) {
    Copy(golden);
    ChangeHeader([](json& header) {
      header["model.layers.1.self_attn.norm.weight"] =
          header["model.layers.1.self_attn.k_norm.weight"];
      header.erase("model.layers.1.self_attn.k_norm.weight");
    });
    EXPECT_ERROR(Open(), StatusCode::kInvalidArgument,
                 "'model.layers.1.self_attn.k_norm.weight' of shape [32] is missing");
    Copy(golden);
    Change("config.json", [](json& config) { config["head_dim"] = 16; });
    EXPECT_ERROR(Open(), StatusCode::kInvalidArgument, "by the model's settings it is [64, 64]");
  }
}

// The head is the embedding, whatever else is stored under its name; rotary tables are numbers of
// the descriptor.
TEST_F(OpenModelTest, TensorsThatCarryNothing) {
  Copy("llama3_rope");
  Change("config.json", [](json& config) { config["tie_word_embeddings"] = true; });
  EXPECT_TRUE(Open().ok()) << Open().status();
  Copy("llama3_rope");
  Change("config.json", [](json& config) { config["tie_word_embeddings"] = true; });
  ChangeHeader([](json& header) {
    header["model.layers.0.self_attn.rotary_emb.inv_freq"] = header["lm_head.weight"];
    header.erase("lm_head.weight");
  });
  EXPECT_TRUE(Open().ok()) << Open().status();
}

TEST_F(OpenModelTest, ShardedIsTheSameModel) {
  Copy("llama_tied");
  const auto whole = Open();
  ASSERT_TRUE(whole.ok());
  json map;
  for (const StoredTensor& tensor : whole->tensors->tensors()) {
    map[tensor.name] = "model-00001-of-00001.safetensors";
  }
  std::filesystem::rename(folder_.File("model.safetensors"),
                          folder_.File("model-00001-of-00001.safetensors"));
  folder_.Write("model.safetensors.index.json", json{{"weight_map", map}}.dump());
  const auto sharded = Open();
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  EXPECT_EQ(sharded->tensors->tensors().size(), whole->tensors->tensors().size());
}

TEST_F(OpenModelTest, HostileJson) {
  const std::string cases[] = {
      "",
      "{",
      "null",
      std::string(1 << 20, '['),
      "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}",
      std::string(2 << 20, ' ') + "{}",
      "{\"model_type\":\"llama\",\"model_type\":\"llama\"}",
      "{\"model_type\":\"llama\xff\"}",
      "{\"vocab_size\":1e400}",
  };
  for (const std::string& text : cases) {
    for (const char* file : {"config.json", "generation_config.json"}) {
      Copy("llama_tied");
      folder_.Write(file, text);
      EXPECT_ERROR(Open(), StatusCode::kInvalidArgument, std::string(file) + ": ");
    }
  }
}

// Phi-3's q, k and v are one tensor, and gate and up.
TEST_F(OpenModelTest, FusedTensorsAreTakenApart) {
  const auto files = OpenModel(GoldenPath("phi3"));
  ASSERT_TRUE(files.ok()) << files.status();
  const std::string layer = "model.layers.1.";
  const StoredTensor* q = files->tensors->Find(layer + "self_attn.q_proj.weight");
  const StoredTensor* k = files->tensors->Find(layer + "self_attn.k_proj.weight");
  const StoredTensor* v = files->tensors->Find(layer + "self_attn.v_proj.weight");
  ASSERT_TRUE(q != nullptr && k != nullptr && v != nullptr);
  EXPECT_THAT(q->shape, ElementsAre(64, 64));
  EXPECT_THAT(k->shape, ElementsAre(32, 64));
  EXPECT_THAT(v->shape, ElementsAre(32, 64));
  EXPECT_EQ(k->offset, q->offset + 64 * 64 * 2);
  EXPECT_EQ(v->offset, k->offset + 32 * 64 * 2);
  EXPECT_EQ(v->offset, q->offset + 96 * 64 * 2);
  EXPECT_EQ(files->tensors->Find(layer + "self_attn.qkv_proj.weight"), nullptr);
}

TEST_F(OpenModelTest, SpoiltFusedTensorsAreNamed) {
  const std::string name = "model.layers.1.self_attn.qkv_proj.weight";
  Copy("phi3");
  ChangeHeader([&](json& header) { header[name]["shape"] = {64, 128}; });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument,
               "'model.layers.1.self_attn.qkv_proj.weight' is BF16 [64, 128]; by the model's "
               "settings it is [128, 64]");
  Copy("phi3");
  ChangeHeader([&](json& header) {
    header["model.layers.9.self_attn.qkv_proj.weight"] = header[name];
    header.erase(name);
  });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument,
               "'model.layers.1.self_attn.q_proj.weight' of shape [64, 64] is missing");
  Copy("phi3");
  ChangeHeader([&](json& header) {
    header["model.layers.1.self_attn.k_proj.weight"] =
        header["model.layers.0.mlp.down_proj.weight"];
    header.erase("model.layers.0.mlp.down_proj.weight");
  });
  EXPECT_ERROR(Open(), StatusCode::kInvalidArgument,
               "'model.layers.1.self_attn.k_proj.weight' twice");
}

}  // namespace
}  // namespace sirocco
