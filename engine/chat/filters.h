// The filters and tests of jinja2, and the functions that templates find as variables.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat/runtime.h"

namespace sirocco::jinja {

// `value | name` and `value is name`. INVALID_ARGUMENT for an unknown name, UNIMPLEMENTED for one
// that jinja2 has and this engine has not.
absl::StatusOr<const Function*> FindFilter(std::string_view name);
absl::StatusOr<const Function*> FindTest(std::string_view name);
bool IsFilter(std::string_view name);
bool IsTest(std::string_view name);

// range, dict, namespace, raise_exception, strftime_now; nullptr for other names.
const Function* FindGlobal(std::string_view name);

// A part of the filters (text_filters.cc, sequence_filters.cc, value_filters.cc); nullptr for
// other names.
const Function* FindTextFilter(std::string_view name);
const Function* FindSequenceFilter(std::string_view name);
const Function* FindValueFilter(std::string_view name);

// The attribute argument of map, sort, selectattr, ...: "name.0.title", an index, or None.
class AttributePath {
 public:
  // None gives the item itself.
  static absl::StatusOr<AttributePath> Parse(Runtime& runtime, const Value* attribute);
  // `absent`, where given and not None, stands for what is undefined on the way.
  ValueOr Get(Runtime& runtime, const Value& item, const Value* absent = nullptr) const;

 private:
  std::vector<Value> parts_;
};

}  // namespace sirocco::jinja
