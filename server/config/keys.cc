#include "server/config/keys.h"

#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "graphs/executor.h"
#include "server/config/values.h"

namespace sirocco {
namespace {

constexpr int64_t kMostInt = std::numeric_limits<int32_t>::max();

template <typename T, typename V>
absl::Status Store(absl::StatusOr<V> value, T& out) {
  if (!value.ok()) return value.status();
  out = *std::move(value);
  return absl::OkStatus();
}

// Builders of entries by the kind of value; `field` is a member of Config.
KeyEntry Text(std::string_view name, std::string Config::*field, std::string_view help) {
  return {name, help,
          [field](std::string_view text, Config& c) {
            if (text.empty()) return absl::InvalidArgumentError("a text that is not empty");
            c.*field = std::string(text);
            return absl::OkStatus();
          },
          [field](const Config& c) { return c.*field; }};
}

KeyEntry Address(std::string_view name, std::string Config::*field, std::string_view help) {
  return {name, help,
          [field](std::string_view text, Config& c) { return Store(ParseAddress(text), c.*field); },
          [field](const Config& c) { return c.*field; }};
}

KeyEntry Choice(std::string_view name, std::string Config::*field,
                const std::vector<std::string>& allowed, std::string_view help) {
  return {name, help,
          [field, allowed](std::string_view text, Config& c) {
            for (const std::string& value : allowed) {
              if (text == value) {
                c.*field = value;
                return absl::OkStatus();
              }
            }
            return absl::InvalidArgumentError(absl::StrJoin(allowed, ", "));
          },
          [field](const Config& c) { return c.*field; }};
}

KeyEntry Integer(std::string_view name, int64_t Config::*field, int64_t min, int64_t max,
                 std::string_view help) {
  return {name, help,
          [=](std::string_view text, Config& c) {
            return Store(ParseInteger(text, min, max), c.*field);
          },
          [field](const Config& c) { return absl::StrCat(c.*field); }};
}

KeyEntry Integer(std::string_view name, std::optional<int64_t> Config::*field, int64_t min,
                 int64_t max, std::string_view help) {
  return {name, help,
          [=](std::string_view text, Config& c) {
            return Store(ParseInteger(text, min, max), c.*field);
          },
          [field](const Config& c) {
            return (c.*field).has_value() ? absl::StrCat(*(c.*field)) : std::string();
          }};
}

KeyEntry Bool(std::string_view name, bool Config::*field, std::string_view help) {
  return {name, help,
          [field](std::string_view text, Config& c) { return Store(ParseBool(text), c.*field); },
          [field](const Config& c) { return std::string(c.*field ? "true" : "false"); }};
}

KeyEntry Duration(std::string_view name, std::chrono::milliseconds Config::*field,
                  std::string_view help) {
  return {
      name, help,
      [field](std::string_view text, Config& c) { return Store(ParseDuration(text), c.*field); },
      [field](const Config& c) { return DurationText(c.*field); }};
}

std::vector<KeyEntry> MakeTable() {
  return {
      Text("model", &Config::model,
           "what to serve: a GGUF file, or a Hugging Face directory (safetensors)"),
      Text("served_model_name", &Config::served_model_name,
           "the model's name to clients; default: the file's or folder's own"),
      Address("listen", &Config::listen, "where gRPC listens; port 0 picks a free one"),
      Address("metrics_listen", &Config::metrics_listen,
              "where /metrics, /healthz and /readyz are served; port 0 picks a free one"),
      Choice("backend", &Config::backend, {"auto", "cpu", "cuda"},
             "what computes; auto: cuda where a device and its plugin are found, else cpu"),
      Choice("dtype", &Config::dtype, {"auto", "float32", "bfloat16", "float16"},
             "weights' type; auto: bfloat16 (the CPU computes with it in float32), on the CPU a "
             "GGUF file's Q8_0, Q4_0 and Q4_1 as they are, on CUDA float16 where the file has "
             "that; float16: CUDA only"),
      Choice("kv_cache_dtype", &Config::kv_cache_dtype,
             {"auto", "float32", "bfloat16", "float16", "fp8"},
             "the KV cache's type; auto: as dtype, of weights in blocks bfloat16; fp8: E4M3 with a "
             "scale a vector, half of bfloat16's memory for some precision, on the CPU slower"),
      Integer("max_batch_size", &Config::max_batch_size, 1, kMaxBatchSize,
              "most sequences that run at once; graphs are captured for 1 ... this"),
      Integer("max_length", &Config::max_length, 1, kMostInt,
              "prompt and generated tokens together; default: the model's, at most 8192"),
      {"kv_cache_memory",
       "bytes of the KV cache (4GiB); default: what max_batch_size x max_length needs, on CUDA at "
       "most what is left of memory_fraction, on the CPU a quarter of free memory",
       [](std::string_view text, Config& c) {
         return Store(ParseBytes(text, 1, int64_t{1} << 46), c.kv_cache_memory);
       },
       [](const Config& c) {
         return c.kv_cache_memory.has_value() ? BytesText(*c.kv_cache_memory) : std::string();
       }},
      {"memory_fraction", "CUDA: the share of the device's memory that may be taken, by others too",
       [](std::string_view text, Config& c) { return Store(ParseShare(text), c.memory_fraction); },
       [](const Config& c) { return absl::StrCat(c.memory_fraction); }},
      Integer("block_size", &Config::block_size, 1, 1024, "KV slots a block"),
      Integer("prefill_chunk_size", &Config::prefill_chunk_size, 16, 65536,
              "most prompt tokens a step"),
      {"itl_factor",
       "while others generate, a step takes fewer prompt tokens (16 at least), so that it takes no "
       "longer than this many of theirs alone (on average, for a client that was given less)",
       [](std::string_view text, Config& c) {
         return Store(ParseNumber(text, 1, 1000), c.itl_factor);
       },
       [](const Config& c) { return absl::StrCat(c.itl_factor); }},
      Integer("max_queue_size", &Config::max_queue_size, 1, 1'000'000,
              "requests that may wait; one more is refused with RESOURCE_EXHAUSTED"),
      Integer("max_queue_tokens", &Config::max_queue_tokens, 1, kMostInt,
              "prompt tokens that may wait; default: no bound but max_queue_size"),
      {"client_weights",
       "shares of clients, as the metadata key sirocco-client names them: alice=3,bob=0.5; 1 for "
       "all others. Who floods the server makes the others wait no longer than their share does",
       [](std::string_view text, Config& c) { return Store(ParseWeights(text), c.client_weights); },
       [](const Config& c) { return WeightsText(c.client_weights); }},
      Bool("prefix_cache", &Config::prefix_cache,
           "keep the KV blocks of prompts and answers, and begin with them what begins alike"),
      Bool("batch_invariant", &Config::batch_invariant,
           "CUDA: the same bits whatever else runs, however a prompt is cut, cached or computed "
           "again, at a cost; the CPU always gives them"),
      Integer("threads", &Config::threads, 1, 1024, "threads of the CPU backend; default: cores"),
      Duration("drain_timeout", &Config::drain_timeout,
               "after SIGTERM, how long running requests may go on"),
      Duration("health_stall_timeout", &Config::health_stall_timeout,
               "NOT_SERVING when work waits and no step has ended for this long"),
      Duration("write_stall_timeout", &Config::write_stall_timeout,
               "a client that reads nothing for this long is ended"),
      Text(
          "tls_certificate", &Config::tls_certificate,
          "serve gRPC over TLS alone: a PEM file with the server's certificate and what leads from "
          "it to its authority; read again when it changes, as tls_key, tls_client_ca and "
          "auth_token_file"),
      Text("tls_key", &Config::tls_key, "the certificate's private key, a PEM file"),
      Text("tls_client_ca", &Config::tls_client_ca,
           "only clients connect whose certificate comes from an authority of this PEM file"),
      Text("auth_token_file", &Config::auth_token_file,
           "calls but health's need 'authorization: Bearer TOKEN'; a token a line, after it the "
           "methods that it allows (Generate,GetModel), none: all"),
      Bool("metrics_tls", &Config::metrics_tls,
           "serve metrics_listen over TLS too, by the same certificate; no client needs one there"),
      {"max_message_size", "largest request in bytes",
       [](std::string_view text, Config& c) {
         return Store(ParseBytes(text, 1024, int64_t{1} << 30), c.max_message_size);
       },
       [](const Config& c) { return BytesText(c.max_message_size); }},
      Integer("max_streams_per_connection", &Config::max_streams_per_connection, 1, kMostInt,
              "calls that one connection may have at once; clients let others wait"),
      Bool("vllm_metrics", &Config::vllm_metrics, "also serve the metrics under their vllm: names"),
      Choice("log_level", &Config::log_level, {"debug", "info", "warning", "error"},
             "the least important log lines shown"),
      Choice("log_format", &Config::log_format, {"text", "json"}, "json: one object a line"),
      Bool("log_prompts", &Config::log_prompts,
           "also log the first 4096 bytes of each request's prompt"),
  };
}

}  // namespace

const std::vector<KeyEntry>& KeyTable() {
  static const auto* table = new std::vector<KeyEntry>(MakeTable());
  return *table;
}

}  // namespace sirocco
