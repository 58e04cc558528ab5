#include "server/config/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

namespace sirocco {
namespace {

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path) << text;
  return path;
}

// Sets a variable for one scope.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }

 private:
  const char* name_;
};

TEST(Config, DefaultsAreTheDocumentedOnes) {
  const auto config = LoadConfig("", {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen, "127.0.0.1:50051");
  EXPECT_EQ(config->metrics_listen, "127.0.0.1:9464");
  EXPECT_EQ(config->max_batch_size, 64);
  EXPECT_EQ(config->block_size, 16);
  EXPECT_EQ(config->max_message_size, 8 << 20);
  EXPECT_EQ(config->drain_timeout, std::chrono::seconds(30));
  EXPECT_EQ(config->mode, Mode::kEager);
  EXPECT_EQ(config->sources.at("listen"), "default");
  EXPECT_EQ(config->sources.at("mode"), "EOLE_TORCH_COMPILE is not set, which means 0");
}

TEST(Config, FlagGoesBeforeEnvironmentBeforeFile) {
  const std::string file =
      WriteFile("c.yaml", "max_batch_size: 3\nblock_size: 32\nthreads: 5\nlog_format: json\n");
  Variable batch("SIROCCO_MAX_BATCH_SIZE", "4");
  Variable block("SIROCCO_BLOCK_SIZE", "64");
  const auto config = LoadConfig(file, {{"max_batch_size", "5"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->max_batch_size, 5);
  EXPECT_EQ(config->block_size, 64);
  EXPECT_EQ(config->threads, 5);
  EXPECT_EQ(config->log_format, "json");
  EXPECT_EQ(config->sources.at("max_batch_size"), "flag");
  EXPECT_EQ(config->sources.at("block_size"), "environment");
  EXPECT_EQ(config->sources.at("threads"), "file");
}

TEST(Config, ValuesOfEveryKind) {
  const auto config = LoadConfig("", {{"kv_cache_memory", "4GiB"},
                                      {"max_message_size", "65536"},
                                      {"drain_timeout", "2m"},
                                      {"write_stall_timeout", "250ms"},
                                      {"vllm_metrics", "false"},
                                      {"listen", "[::1]:0"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kv_cache_memory, int64_t{4} << 30);
  EXPECT_EQ(config->max_message_size, 65536);
  EXPECT_EQ(config->drain_timeout, std::chrono::minutes(2));
  EXPECT_EQ(config->write_stall_timeout, std::chrono::milliseconds(250));
  EXPECT_FALSE(config->vllm_metrics);
  EXPECT_EQ(config->listen, "[::1]:0");
}

struct BadCase {
  const char* key;
  const char* value;
  const char* allowed;  // part of what the message says
};

class BadValue : public testing::TestWithParam<BadCase> {};

TEST_P(BadValue, NamesKeyValueAndWhatIsAllowed) {
  const auto config = LoadConfig("", {{GetParam().key, GetParam().value}});
  ASSERT_FALSE(config.ok());
  const std::string message(config.status().message());
  EXPECT_EQ(message.find(GetParam().key), 0u) << message;
  std::string flag = std::string("--") + GetParam().key;
  for (char& c : flag) c = c == '_' ? '-' : c;
  EXPECT_NE(message.find(flag), std::string::npos) << message;
  EXPECT_NE(message.find(std::string("'") + GetParam().value + "'"), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().allowed), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadValue,
    testing::Values(
        BadCase{"max_batch_size", "0", "from 1 to 512"},
        BadCase{"max_batch_size", "513", "from 1 to 512"},
        BadCase{"max_batch_size", "99999999999999999999", "from 1 to 512"},
        BadCase{"max_batch_size", "4x", "from 1 to 512"},
        BadCase{"max_batch_size", "", "from 1 to 512"}, BadCase{"max_length", "-1", "from 1 to"},
        BadCase{"model", "", "not empty"}, BadCase{"listen", "localhost", "HOST:PORT"},
        BadCase{"listen", "localhost:70000", "65535"}, BadCase{"listen", ":80", "HOST:PORT"},
        BadCase{"metrics_listen", "a:b:1", "HOST:PORT"},
        BadCase{"backend", "tpu", "auto, cpu, cuda"}, BadCase{"dtype", "int8", "bfloat16"},
        BadCase{"kv_cache_memory", "4 apples", "4GiB"}, BadCase{"memory_fraction", "0", "above 0"},
        BadCase{"memory_fraction", "1.01", "at most 1"}, BadCase{"memory_fraction", "nan", "0.9"},
        BadCase{"memory_fraction", "0.5x", "0.9"}, BadCase{"kv_cache_memory", "9999999TiB", "4GiB"},
        BadCase{"drain_timeout", "30", "30s"}, BadCase{"drain_timeout", "-1s", "30s"},
        BadCase{"itl_factor", "0.9", "from 1 to 1000"}, BadCase{"itl_factor", "nan", "from 1"},
        BadCase{"client_weights", "a", "alice=3"}, BadCase{"client_weights", "=2", "alice=3"},
        BadCase{"client_weights", "a=0", "0.001"},
        BadCase{"client_weights", "a=1,a=2", "each once"},
        BadCase{"prefix_cache", "perhaps", "true or false"},
        BadCase{"batch_invariant", "maybe", "true or false"},
        BadCase{"vllm_metrics", "yes", "true or false"}, BadCase{"log_level", "loud", "warning"}));

TEST(Config, ClientWeights) {
  using Weights = std::map<std::string, double>;
  EXPECT_EQ(LoadConfig("", {})->client_weights, Weights());
  EXPECT_EQ(LoadConfig("", {{"client_weights", "alice=3, bob=0.5,"}})->client_weights,
            (Weights{{"alice", 3}, {"bob", 0.5}}));
  const auto config = LoadConfig(
      WriteFile("w.yaml", ToYaml(*LoadConfig("", {{"client_weights", "b=2,a=1.5"}}))), {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->client_weights, (Weights{{"a", 1.5}, {"b", 2}}));
}

TEST(Config, UnknownKeysAreNamedWithTheNearest) {
  const auto config = LoadConfig(WriteFile("u.yaml", "max_batchsize: 3\n"), {});
  ASSERT_FALSE(config.ok());
  const std::string message(config.status().message());
  EXPECT_NE(message.find("unknown key 'max_batchsize'"), std::string::npos) << message;
  EXPECT_NE(message.find("'max_batch_size'"), std::string::npos) << message;
}

TEST(Config, BadFilesAreNamed) {
  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {"- a\n- b\n", "map"},
           {"listen: [1, 2]\n", "listen must be a single value"},
           {"listen: a:1\nlisten: b:2\n", "twice"},
           {"listen: [a\n", "line"},
           {"? [1]\n: 2\n", "plain word"}}) {
    const std::string path = WriteFile("bad.yaml", text);
    const auto config = LoadConfig(path, {});
    ASSERT_FALSE(config.ok()) << text;
    const std::string message(config.status().message());
    EXPECT_NE(message.find(path), std::string::npos) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  EXPECT_EQ(LoadConfig("/no/such/file.yaml", {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadConfig(testing::TempDir(), {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Config, AnEmptyFileIsNoError) {
  EXPECT_TRUE(LoadConfig(WriteFile("empty.yaml", "# nothing\n"), {}).ok());
}

TEST(Config, ModeVariablesAreAlwaysChecked) {
  {
    Variable compile("EOLE_TORCH_COMPILE", "1");
    Variable mode("EOLE_COMPILE_MODE", "0");
    EXPECT_EQ(LoadConfig("", {})->mode, Mode::kDecoderGraph);
  }
  Variable mode("EOLE_COMPILE_MODE", "4");
  const auto config = LoadConfig("", {});
  ASSERT_FALSE(config.ok());
  EXPECT_NE(config.status().message().find("EOLE_COMPILE_MODE"), absl::string_view::npos);
}

// What check-config prints is a configuration that reads back as the same.
TEST(Config, YamlReadsBackAsTheSame) {
  const auto config = LoadConfig(
      "", {{"model", "a: b #c"}, {"kv_cache_memory", "1536MiB"}, {"drain_timeout", "1500ms"}});
  ASSERT_TRUE(config.ok());
  const auto again = LoadConfig(WriteFile("again.yaml", ToYaml(*config)), {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->model, "a: b #c");
  EXPECT_EQ(again->kv_cache_memory, config->kv_cache_memory);
  EXPECT_EQ(again->drain_timeout, config->drain_timeout);
  EXPECT_EQ(again->max_length, std::nullopt);
  EXPECT_EQ(again->sources.at("drain_timeout"), "file");
}

TEST(Config, EveryKeyHasFlagVariableAndHelp) {
  for (const ConfigKey& key : ConfigKeys()) {
    EXPECT_EQ(key.flag.substr(0, 2), "--");
    EXPECT_EQ(key.variable.substr(0, 8), "SIROCCO_");
    EXPECT_FALSE(key.help.empty()) << key.name;
  }
}

}  // namespace
}  // namespace sirocco
