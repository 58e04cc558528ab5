#include "tests/testing/beam_golden.h"

#include <fstream>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace sirocco {
namespace {

using Json = nlohmann::json;

BeamGolden ToGolden(const Json& given) {
  BeamGolden golden;
  golden.prompt = given.at("prompt").get<std::vector<int32_t>>();
  golden.num_beams = given.at("num_beams");
  golden.max_new_tokens = given.at("max_new_tokens");
  golden.length_penalty = given.value("length_penalty", golden.length_penalty);
  golden.early_stopping = given.value("early_stopping", golden.early_stopping);
  golden.min_new_tokens = given.value("min_new_tokens", golden.min_new_tokens);
  golden.repetition_penalty = given.value("repetition_penalty", golden.repetition_penalty);
  golden.no_repeat_ngram_size = given.value("no_repeat_ngram_size", golden.no_repeat_ngram_size);
  golden.ends = given.at("ends").get<std::vector<int32_t>>();
  golden.banned = given.at("banned").get<std::vector<int32_t>>();
  for (const Json& answer : given.at("answers")) {
    golden.answers.push_back(
        {answer.at("ids").get<std::vector<int32_t>>(), answer.at("score").get<double>()});
  }
  return golden;
}

}  // namespace

absl::StatusOr<std::vector<BeamGolden>> ReadBeamGoldens(const std::string& path) {
  std::ifstream stream(path);
  const Json json = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) return absl::NotFoundError(path + ": no array of beam searches");
  std::vector<BeamGolden> goldens;
  for (const Json& given : json) goldens.push_back(ToGolden(given));
  return goldens;
}

}  // namespace sirocco
