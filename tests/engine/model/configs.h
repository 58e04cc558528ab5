// config.json files of the goldens, changed, and what is read of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/model/hugging_face.h"
#include "engine/model/json_file.h"
#include "gtest/gtest.h"
#include "tests/engine/model/test_files.h"
#include "tests/testing/paths.h"

namespace sirocco {

inline nlohmann::json Config(const std::string& golden) {
  return nlohmann::json::parse(ReadBytes(GoldenPath(golden + "/config.json")));
}

inline absl::StatusOr<ModelDescriptor> Read(const nlohmann::json& config) {
  const std::string text = config.dump();
  const auto parsed = ParseJsonObject(text, "config.json", 1 << 20);
  if (!parsed.ok()) return parsed.status();
  const absl::StatusOr<const Family*> family = FamilyFromConfig(*parsed, "config.json");
  if (!family.ok()) return family.status();
  return DescriptorFromConfig(*parsed, "config.json", **family);
}

// A change of a golden's file, and a part of the error that it brings.
struct Case {
  std::string part;
  std::function<void(nlohmann::json&)> change;
};

inline void ExpectAll(const std::string& golden, absl::StatusCode code,
                      const std::vector<Case>& cases) {
  for (const Case& test : cases) {
    nlohmann::json config = Config(golden);
    test.change(config);
    EXPECT_ERROR(Read(config), code, test.part);
    EXPECT_ERROR(Read(config), code, "config.json: ");
  }
}

inline Case Set(const std::string& key, const nlohmann::json& value, const std::string& part) {
  return {part, [=](nlohmann::json& config) { config[key] = value; }};
}
inline Case SetRope(const std::string& key, const nlohmann::json& value, const std::string& part) {
  return {part, [=](nlohmann::json& config) { config["rope_parameters"][key] = value; }};
}

}  // namespace sirocco
