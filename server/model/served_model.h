// Everything that serves one model, loaded: files, tokenizer, template, device, weights, engine.
// The service and the offline commands are built on it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/chat/chat_template.h"
#include "engine/engine.h"
#include "engine/model/model_files.h"
#include "engine/tokenizer/tokenizer.h"
#include "graphs/mode.h"
#include "kernels/device.h"
#include "server/model/dtypes.h"

namespace sirocco {

// What of a model a request is checked against. Immutable; any thread.
struct ModelFacts {
  std::string name;  // served name
  std::string architecture;
  int32_t max_length = 0;
  int32_t max_batch_size = 0;
  int32_t vocab_size = 0;  // of the logits: ids below it are valid
  std::string dtype;
  std::string backend;
  std::string device;
  Mode mode = Mode::kEager;
  std::vector<int32_t> end_token_ids;
  uint64_t parameter_count = 0;
  GenerationDefaults generation;
  const Tokenizer* tokenizer = nullptr;         // may be null
  const ChatTemplate* chat_template = nullptr;  // may be null
};

// Members in order of construction: the engine stops first.
struct ServedModel {
  ModelFiles files;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  std::unique_ptr<Device> device;
  std::string why_device;  // for people
  ModelDTypes dtypes;
  ModelWeights weights;
  ModelFacts facts;
  double load_seconds = 0;
  std::unique_ptr<Engine> engine;
};

}  // namespace sirocco
