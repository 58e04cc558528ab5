#include "engine/chat/filters.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/chat/attributes.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"

namespace sirocco::jinja {
namespace {

// Filters of jinja2 that no known chat template uses.
constexpr std::string_view kUnsupported[] = {
    "filesizeformat", "groupby", "pprint",   "random",  "striptags",
    "urlencode",      "urlize",  "wordwrap", "xmlattr",
};

const Function* Find(std::string_view name) {
  if (const Function* found = FindTextFilter(name)) return found;
  if (const Function* found = FindSequenceFilter(name)) return found;
  return FindValueFilter(name);
}

bool IsIndex(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(),
                                      [](char byte) { return byte >= '0' && byte <= '9'; });
}

}  // namespace

absl::StatusOr<const Function*> FindFilter(std::string_view name) {
  if (const Function* found = Find(name)) return found;
  const std::string shown = Shortened(name);
  if (std::find(std::begin(kUnsupported), std::end(kUnsupported), name) != std::end(kUnsupported)) {
    return absl::UnimplementedError(absl::StrCat("the filter '", shown, "' is not supported"));
  }
  return TemplateError(absl::StrCat("No filter named '", shown, "'."));
}

bool IsFilter(std::string_view name) { return Find(name) != nullptr; }

absl::StatusOr<AttributePath> AttributePath::Parse(Runtime& runtime, const Value* attribute) {
  AttributePath path;
  if (attribute == nullptr || attribute->is_none()) return path;
  if (!attribute->is_string()) {
    path.parts_.push_back(*attribute);
    return path;
  }
  std::string_view rest = attribute->bytes();
  while (true) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    int64_t index = 0;
    if (IsIndex(part) && absl::SimpleAtoi(std::string(part), &index)) {
      path.parts_.push_back(Value::Int(index));
    } else {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(Value name, runtime.String(part, false));
      path.parts_.push_back(std::move(name));
    }
    if (dot == std::string_view::npos) return path;
    rest.remove_prefix(dot + 1);
  }
}

ValueOr AttributePath::Get(Runtime& runtime, const Value& item, const Value* absent) const {
  Value value = item;
  for (const Value& part : parts_) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(value, GetItem(runtime, value, part));
    if (value.is_undefined() && absent != nullptr && !absent->is_none()) value = *absent;
  }
  return value;
}

}  // namespace sirocco::jinja
