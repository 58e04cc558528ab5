// config.json and generation_config.json.
#include <cmath>

#include "engine/model/generation_config.h"
#include "engine/model/hugging_face.h"
#include "engine/model/json_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sirocco;
  const auto json = ParseJsonObject(AsText(data, size), "config.json", kMaxConfigBytes);
  if (!json.ok()) {
    RequireOneLine(json.status());
    return 0;
  }
  const auto family = FamilyFromConfig(*json, "config.json");
  if (!family.ok()) {
    RequireOneLine(family.status());
    return 0;
  }
  const auto model = DescriptorFromConfig(*json, "config.json", **family);
  if (model.ok()) {
    Require(model->vocab_size > 0 && model->hidden_size > 0 && !model->layers.empty(), "sizes");
    Require(model->heads % model->kv_heads == 0 && model->head_dim % 2 == 0, "heads");
    // Where the residual stream is kept divided, above 1 too.
    Require(model->norm_epsilon > 0 && std::isfinite(model->norm_epsilon), "epsilon");
  } else {
    RequireOneLine(model.status());
  }
  const auto defaults = ReadGenerationDefaults(*json, "config.json");
  if (!defaults.ok()) RequireOneLine(defaults.status());
  const auto ends = ReadEndTokenIds(*json, "config.json", 1000);
  if (!ends.ok()) RequireOneLine(ends.status());
  return 0;
}
