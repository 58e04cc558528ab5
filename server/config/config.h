// The configuration: each key from its flag, else its environment variable, else the file, else its
// default. The keys, their ranges and their help stand in one table, in keys.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/mode.h"

namespace sirocco {

// Ranges and meaning: keys.cc. Unset optionals: chosen when the model is known.
struct Config {
  std::string model;
  std::string served_model_name;  // empty: the model's own
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen = "127.0.0.1:9464";
  std::string backend = "auto";
  std::string dtype = "auto";
  std::string kv_cache_dtype = "auto";
  int64_t max_batch_size = 64;
  std::optional<int64_t> max_length;
  std::optional<int64_t> kv_cache_memory;  // bytes
  double memory_fraction = 0.9;
  int64_t block_size = 16;
  int64_t prefill_chunk_size = 1024;
  double itl_factor = 3;
  int64_t max_queue_size = 1024;
  std::optional<int64_t> max_queue_tokens;
  std::map<std::string, double> client_weights;
  bool prefix_cache = true;
  bool batch_invariant = false;
  std::optional<int64_t> threads;
  std::chrono::milliseconds drain_timeout{30'000};
  std::chrono::milliseconds health_stall_timeout{10'000};
  std::chrono::milliseconds write_stall_timeout{60'000};
  std::string tls_certificate, tls_key, tls_client_ca, auth_token_file;  // paths; empty: none
  bool metrics_tls = false;
  int64_t max_message_size = 8 << 20;
  int64_t max_streams_per_connection = 4096;
  bool vllm_metrics = true;
  std::string log_level = "info";
  std::string log_format = "text";
  bool log_prompts = false;

  // --cuda-portable, a flag for tests alone: the kernels for every GPU, also where faster ones are.
  bool cuda_portable = false;

  // EOLE_TORCH_COMPILE and EOLE_COMPILE_MODE.
  Mode mode = Mode::kEager;

  // Where each key's value came from: "flag", "environment", "file" or "default". Of "mode", which
  // is no key: what the two variables say.
  std::map<std::string, std::string> sources;
};

struct ConfigKey {
  std::string name;      // "max_batch_size": the YAML key
  std::string flag;      // "--max-batch-size"
  std::string variable;  // "SIROCCO_MAX_BATCH_SIZE"
  std::string value;     // the default, as text; "" where there is none
  std::string help;
};

// All keys, in the order of the documentation.
std::vector<ConfigKey> ConfigKeys();

// `flags`: values given on the command line, by key name. `file`: a YAML path, or empty. Reads the
// environment. Errors are one line: the key and where it was set, the value, what is allowed
// (INVALID_ARGUMENT), or the file (NOT_FOUND, PERMISSION_DENIED).
absl::StatusOr<Config> LoadConfig(const std::string& file,
                                  const std::map<std::string, std::string>& flags);

// EOLE_TORCH_COMPILE and EOLE_COMPILE_MODE alone: checked before any command.
absl::StatusOr<Mode> ModeFromEnvironment();

// The effective configuration as YAML, with each key's source as a comment.
std::string ToYaml(const Config& config);

}  // namespace sirocco
