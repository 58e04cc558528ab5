// Filters of sequences and dicts. Where jinja2 gives a generator, so do these, its items made at
// once.
#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/filters.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"

namespace sirocco::jinja {
namespace {

bool Flag(const Value* argument) { return argument != nullptr && IsTrue(*argument); }

// Strings compare in lower case unless the case matters.
ValueOr SortKey(Runtime& runtime, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return MapCase(runtime, value.text(), CaseMapping::kLower);
}

// The positions of the keys in ascending (or descending) order; equal ones keep theirs.
absl::StatusOr<std::vector<size_t>> SortedOrder(Runtime& runtime, const std::vector<Value>& keys,
                                                bool reverse) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  absl::Status status;
  const auto before = [&](size_t a, size_t b) {
    if (!status.ok()) return false;
    const absl::StatusOr<bool> less =
        reverse ? Less(runtime, keys[b], keys[a]) : Less(runtime, keys[a], keys[b]);
    if (less.ok()) return *less;
    status = less.status();
    return false;
  };
  std::stable_sort(order.begin(), order.end(), before);
  SIROCCO_CHAT_RETURN_IF_ERROR(status);
  return order;
}

ValueOr First(Runtime& runtime, const Value& subject, const Args&) {
  if (subject.is_string()) return Slice(runtime, subject, Value::None(), Value::Int(1), Value());
  if (subject.is(Kind::kIterator)) {
    const IteratorObject& iterator = subject.iterator();
    const std::vector<Value>& items = iterator.items->items;
    if (iterator.next < items.size()) return items[iterator.next++];
    return runtime.Undefined("No first item, sequence was empty.");
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  if (!items->items.empty()) return items->items.front();
  return runtime.Undefined("No first item, sequence was empty.");
}

ValueOr Last(Runtime& runtime, const Value& subject, const Args&) {
  if (subject.is(Kind::kIterator)) return TemplateError("'generator' object is not reversible");
  if (subject.is_string()) return Slice(runtime, subject, Value::Int(-1), Value(), Value());
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  if (!items->items.empty()) return items->items.back();
  return runtime.Undefined("No last item, sequence was empty.");
}

ValueOr List(Runtime& runtime, const Value& subject, const Args&) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  return Value(Kind::kList, items);
}

ValueOr ReverseFilter(Runtime& runtime, const Value& subject, const Args&) {
  if (subject.is_string()) return Reverse(runtime, subject.text());
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  return runtime.Iterator({items->items.rbegin(), items->items.rend()});
}

ValueOr Items(Runtime& runtime, const Value& subject, const Args&) {
  if (subject.is_undefined()) return runtime.Iterator({});
  if (!subject.is(Kind::kDict)) return TemplateError("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : subject.dict().entries) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value pair, runtime.Tuple({key, value}));
    pairs.push_back(std::move(pair));
  }
  return runtime.Iterator(std::move(pairs));
}

ValueOr DictSort(Runtime& runtime, const Value& subject, const Args& args) {
  if (subject.is_undefined()) return UndefinedError(subject);
  if (!subject.is(Kind::kDict)) return TemplateError("dictsort() takes a mapping");
  std::string_view by = "key";
  if (args[1] != nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* name, TextArgument(args[1], "by"));
    by = name->bytes();
  }
  if (by != "key" && by != "value") {
    return TemplateError("You can only sort by either \"key\" or \"value\"");
  }
  std::vector<Value> pairs;
  std::vector<Value> keys;
  for (const auto& [key, value] : subject.dict().entries) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value pair, runtime.Tuple({key, value}));
    pairs.push_back(std::move(pair));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value sort_key,
                                  SortKey(runtime, by == "key" ? key : value, Flag(args[0])));
    keys.push_back(std::move(sort_key));
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                                SortedOrder(runtime, keys, Flag(args[2])));
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(pairs[i]);
  return runtime.List(std::move(sorted));
}

// The attributes of `sort`, of which there may be several, divided by commas.
absl::StatusOr<std::vector<AttributePath>> SortAttributes(Runtime& runtime,
                                                          const Value* attribute) {
  std::vector<AttributePath> paths;
  if (attribute == nullptr || !attribute->is_string()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(AttributePath path, AttributePath::Parse(runtime, attribute));
    paths.push_back(std::move(path));
    return paths;
  }
  std::string_view rest = attribute->bytes();
  while (true) {
    const size_t comma = rest.find(',');
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value part, runtime.String(rest.substr(0, comma), false));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(AttributePath path, AttributePath::Parse(runtime, &part));
    paths.push_back(std::move(path));
    if (comma == std::string_view::npos) return paths;
    rest.remove_prefix(comma + 1);
  }
}

ValueOr Sort(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const auto paths, SortAttributes(runtime, args[2]));
  std::vector<Value> keys;
  for (const Value& item : items->items) {
    std::vector<Value> parts;
    for (const AttributePath& path : paths) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value attribute, path.Get(runtime, item));
      SIROCCO_CHAT_ASSIGN_OR_RETURN(Value part, SortKey(runtime, attribute, Flag(args[1])));
      parts.push_back(std::move(part));
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value key, runtime.Tuple(std::move(parts)));
    keys.push_back(std::move(key));
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                                SortedOrder(runtime, keys, Flag(args[0])));
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(items->items[i]);
  return runtime.List(std::move(sorted));
}

ValueOr Unique(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, args[1]));
  DictObject seen;
  std::vector<Value> unique;
  for (const Value& item : items->items) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value attribute, path.Get(runtime, item));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value key, SortKey(runtime, attribute, Flag(args[0])));
    if (!DictObject::CanBeKey(key)) {
      return absl::UnimplementedError(
          absl::StrCat("unique of values of type '", std::string(TypeName(key)),
                       "' is not supported: only of strings, numbers and none"));
    }
    if (seen.Find(key) != nullptr) continue;
    seen.Set(std::move(key), Value());
    unique.push_back(item);
  }
  return runtime.Iterator(std::move(unique));
}

template <bool kLargest>
ValueOr Extreme(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, args[1]));
  if (items->items.empty()) return runtime.Undefined("No aggregated item, sequence was empty.");
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : items->items) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value attribute, path.Get(runtime, item));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value key, SortKey(runtime, attribute, Flag(args[0])));
    bool better = best == nullptr;
    if (!better) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(
          better, kLargest ? Less(runtime, best_key, key) : Less(runtime, key, best_key));
    }
    if (!better) continue;
    best = &item;
    best_key = std::move(key);
  }
  return *best;
}

ValueOr Batch(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t count, IntegerArgument(args[0], 0, "linecount"));
  if (count < 1 || count > kMaxRange) {
    return TemplateError(absl::StrCat("batch(): linecount is ", count, "; 1 to ", kMaxRange));
  }
  const bool fills = args[1] != nullptr && !args[1]->is_none();
  std::vector<Value> rows;
  for (size_t begin = 0; begin < items->items.size(); begin += static_cast<size_t>(count)) {
    std::vector<Value> row;
    for (size_t i = begin; i < begin + static_cast<size_t>(count); ++i) {
      if (i < items->items.size()) {
        row.push_back(items->items[i]);
      } else if (fills) {
        row.push_back(*args[1]);
      }
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value list, runtime.List(std::move(row)));
    rows.push_back(std::move(list));
  }
  return runtime.Iterator(std::move(rows));
}

ValueOr SliceFilter(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t count, IntegerArgument(args[0], 0, "slices"));
  if (count < 1 || count > kMaxRange) {
    return TemplateError(absl::StrCat("slice(): slices is ", count, "; 1 to ", kMaxRange));
  }
  const auto slices = static_cast<size_t>(count);
  const size_t least = items->items.size() / slices;
  const size_t longer = items->items.size() % slices;
  const bool fills = args[1] != nullptr && !args[1]->is_none();
  std::vector<Value> columns;
  auto next = items->items.begin();
  for (size_t i = 0; i < slices; ++i) {
    const auto size = static_cast<std::ptrdiff_t>(least + (i < longer ? 1 : 0));
    std::vector<Value> column(next, next + size);
    next += size;
    if (fills && i >= longer) column.push_back(*args[1]);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value list, runtime.List(std::move(column)));
    columns.push_back(std::move(list));
  }
  return runtime.Iterator(std::move(columns));
}

absl::StatusOr<std::string> NameArgument(const Value& value, const char* filter) {
  if (value.is_string()) return std::string(value.bytes());
  return TemplateError(
      absl::StrCat(filter, "() takes a name, not '", std::string(TypeName(value)), "'"));
}

ValueOr MapAttribute(Runtime& runtime, const SequenceRef& items, const CallArgs& raw) {
  const Value* attribute = nullptr;
  const Value* absent = nullptr;
  for (const auto& [name, value] : raw.named) {
    if (name != "attribute" && name != "default") {
      return TemplateError(absl::StrCat("Unexpected keyword argument '", name, "'"));
    }
    (name == "attribute" ? attribute : absent) = &value;
  }
  if (attribute == nullptr) return TemplateError("map requires a filter argument");
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, attribute));
  std::vector<Value> mapped;
  for (const Value& item : items->items) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, path.Get(runtime, item, absent));
    mapped.push_back(std::move(value));
  }
  return runtime.Iterator(std::move(mapped));
}

ValueOr Map(Runtime& runtime, const Value& subject, const Args& args) {
  if (!IsTrue(subject)) return runtime.Iterator({});
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  const CallArgs& raw = args.raw();
  if (raw.positional.empty()) return MapAttribute(runtime, items, raw);
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const std::string name, NameArgument(raw.positional[0], "map"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Function* filter, FindFilter(name));
  const CallArgs rest{{raw.positional.begin() + 1, raw.positional.end()}, raw.named};
  std::vector<Value> mapped;
  for (const Value& item : items->items) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, CallFunction(runtime, *filter, item, rest));
    mapped.push_back(std::move(value));
  }
  return runtime.Iterator(std::move(mapped));
}

// select, reject, selectattr and rejectattr: the items whose test (or truth) is as wanted.
template <bool kByAttribute, bool kWanted>
ValueOr Select(Runtime& runtime, const Value& subject, const Args& args) {
  if (!IsTrue(subject)) return runtime.Iterator({});
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  const CallArgs& raw = args.raw();
  constexpr size_t kTestAt = kByAttribute ? 1 : 0;
  if (raw.positional.size() < kTestAt) {
    return TemplateError("Missing parameter for attribute name");
  }
  SIROCCO_CHAT_ASSIGN_OR_RETURN(
      const AttributePath path,
      AttributePath::Parse(runtime, kByAttribute ? &raw.positional[0] : nullptr));
  const Function* test = nullptr;
  CallArgs rest;
  if (raw.positional.size() > kTestAt) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const std::string name,
                                  NameArgument(raw.positional[kTestAt], "select"));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(test, FindTest(name));
    rest.positional.assign(raw.positional.begin() + kTestAt + 1, raw.positional.end());
    rest.named = raw.named;
  }
  std::vector<Value> selected;
  for (const Value& item : items->items) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, path.Get(runtime, item));
    if (test != nullptr) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(value, CallFunction(runtime, *test, value, rest));
    }
    if (IsTrue(value) == kWanted) selected.push_back(item);
  }
  return runtime.Iterator(std::move(selected));
}

constexpr Function kFilters[] = {
    {"batch", Batch, {"linecount", "fill_with"}, 1},
    {"dictsort", DictSort, {"case_sensitive", "by", "reverse"}},
    {"first", First},
    {"items", Items},
    {"last", Last},
    {"list", List},
    {"map", Map, {}, 0, true},
    {"max", Extreme<true>, {"case_sensitive", "attribute"}},
    {"min", Extreme<false>, {"case_sensitive", "attribute"}},
    {"reject", Select<false, false>, {}, 0, true},
    {"rejectattr", Select<true, false>, {}, 0, true},
    {"reverse", ReverseFilter},
    {"select", Select<false, true>, {}, 0, true},
    {"selectattr", Select<true, true>, {}, 0, true},
    {"slice", SliceFilter, {"slices", "fill_with"}, 1},
    {"sort", Sort, {"reverse", "case_sensitive", "attribute"}},
    {"unique", Unique, {"case_sensitive", "attribute"}},
};

}  // namespace

const Function* FindSequenceFilter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const Function& filter) { return filter.name == name; });
  return found == std::end(kFilters) ? nullptr : found;
}

}  // namespace sirocco::jinja
