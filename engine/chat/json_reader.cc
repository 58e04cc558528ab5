#include "engine/chat/json_reader.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

using Json = nlohmann::ordered_json;

ValueOr FromJsonAt(Runtime& runtime, const Json& json, const std::string& where, int32_t depth);

ValueOr StringFromJson(Runtime& runtime, const std::string& text, const std::string& where) {
  if (!IsValidUtf8(text)) return TemplateError(absl::StrCat(where, " holds invalid UTF-8"));
  return runtime.String(text, /*trusted=*/false);
}

ValueOr ObjectFromJson(Runtime& runtime, const Json& json, const std::string& where,
                       int32_t depth) {
  auto dict = std::make_shared<DictObject>();
  for (const auto& [key, member] : json.items()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value name, StringFromJson(runtime, key, where));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, FromJsonAt(runtime, member, where, depth + 1));
    dict->Set(std::move(name), std::move(value));
  }
  return runtime.Dict(std::move(dict));
}

ValueOr ArrayFromJson(Runtime& runtime, const Json& json, const std::string& where, int32_t depth) {
  std::vector<Value> items;
  items.reserve(json.size());
  for (const Json& element : json) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value item, FromJsonAt(runtime, element, where, depth + 1));
    items.push_back(std::move(item));
  }
  return runtime.List(std::move(items));
}

ValueOr FromJsonAt(Runtime& runtime, const Json& json, const std::string& where, int32_t depth) {
  if (depth > runtime.meter().max_depth()) return runtime.meter().DepthExhausted();
  switch (json.type()) {
    case Json::value_t::null:
      return Value::None();
    case Json::value_t::boolean:
      return Value::Bool(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::Int(json.get<int64_t>());
    case Json::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return TemplateError(absl::StrCat(where, " holds the integer ", number,
                                          "; chat templates take integers up to ",
                                          std::numeric_limits<int64_t>::max()));
      }
      return Value::Int(static_cast<int64_t>(number));
    }
    case Json::value_t::number_float:
      return Value::Float(json.get<double>());
    case Json::value_t::string:
      return StringFromJson(runtime, json.get_ref<const std::string&>(), where);
    case Json::value_t::array:
      return ArrayFromJson(runtime, json, where, depth);
    case Json::value_t::object:
      return ObjectFromJson(runtime, json, where, depth);
    default:
      return TemplateError(absl::StrCat(where, " holds binary data, which JSON has not"));
  }
}

}  // namespace

ValueOr FromJson(Runtime& runtime, const Json& json, const std::string& where) {
  return FromJsonAt(runtime, json, where, 1);
}

}  // namespace sirocco::jinja
