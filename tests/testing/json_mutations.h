// Every way to spoil one place of a JSON text: its value becomes one that nobody expects there, or
// it is gone.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sirocco {

// What values become.
inline const std::vector<nlohmann::json>& HostileValues() {
  using nlohmann::json;
  static const auto& values = *new std::vector<json>{
      nullptr,
      true,
      0,
      -1,
      1,
      3,
      std::numeric_limits<int32_t>::max(),
      std::numeric_limits<int64_t>::max(),
      std::numeric_limits<int64_t>::min(),
      std::numeric_limits<uint64_t>::max(),
      0.5,
      -1e308,
      1e-320,
      "",
      "llama",
      std::string("\0\n\x7f", 3),
      std::string(1000, 'x'),
      json::array(),
      json::object(),
      json::array({json::array({json::array()})}),
      json::object({{"type", "x"}}),
  };
  return values;
}

// Calls use(mutated, what) for every place of `original` down to `depth` below its root, of lists
// and objects the first `most` members; `what` names the place and the value, for messages.
inline void ForEachMutation(
    const nlohmann::json& original, int depth, size_t most,
    const std::function<void(const nlohmann::json&, const std::string&)>& use) {
  using Pointer = nlohmann::json::json_pointer;
  std::vector<std::pair<Pointer, int>> places = {{Pointer(), 0}};
  for (size_t next = 0; next < places.size(); ++next) {
    const auto [place, level] = places[next];
    const nlohmann::json& value = original[place];
    if (level < depth && value.is_structured()) {
      size_t count = 0;
      for (const auto& item : value.items()) {
        if (++count > most) break;
        places.emplace_back(value.is_array() ? place / (count - 1) : place / item.key(), level + 1);
      }
    }
    for (const nlohmann::json& hostile : HostileValues()) {
      nlohmann::json mutated = original;
      mutated[place] = hostile;
      use(mutated, place.to_string() + " is " + hostile.dump());
    }
    if (level == 0) continue;
    nlohmann::json mutated = original;
    nlohmann::json& parent = mutated[place.parent_pointer()];
    if (parent.is_array()) {
      parent.erase(std::stoul(place.back()));
    } else {
      parent.erase(place.back());
    }
    use(mutated, place.to_string() + " is gone");
  }
}

}  // namespace sirocco
