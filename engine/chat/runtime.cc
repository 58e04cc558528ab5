#include "engine/chat/runtime.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"

namespace sirocco::jinja {
namespace {

// Of a shared object's control block.
constexpr size_t kObjectOverhead = 32;

std::string Quoted(std::string_view name) { return absl::StrCat("'", Shortened(name), "'"); }

}  // namespace

absl::Status TemplateError(std::string message) {
  return absl::InvalidArgumentError(std::move(message));
}

absl::StatusOr<Args> BindArgs(const Function& function, const CallArgs& raw) {
  Args args(raw);
  if (function.variadic) return args;
  const auto count = static_cast<size_t>(
      std::find(function.parameters.begin(), function.parameters.end(), std::string_view()) -
      function.parameters.begin());
  const std::string name(function.name);
  if (raw.positional.size() > count) {
    return TemplateError(absl::StrCat(name, "() takes at most ", count, " arguments (",
                                      raw.positional.size(), " given)"));
  }
  for (size_t i = 0; i < raw.positional.size(); ++i) args.bound_[i] = &raw.positional[i];
  for (const auto& [key, value] : raw.named) {
    const auto* const end = function.parameters.begin() + count;
    const auto* const found = std::find(function.parameters.begin(), end, key);
    if (found == end) {
      return TemplateError(
          absl::StrCat(name, "() got an unexpected keyword argument ", Quoted(key)));
    }
    const Value*& slot = args.bound_[static_cast<size_t>(found - function.parameters.begin())];
    if (slot != nullptr) {
      return TemplateError(absl::StrCat(name, "() got multiple values for argument ", Quoted(key)));
    }
    slot = &value;
  }
  for (size_t i = 0; i < function.required; ++i) {
    if (args.bound_[i] == nullptr) {
      return TemplateError(
          absl::StrCat(name, "() is missing its argument ", Quoted(function.parameters[i])));
    }
  }
  return args;
}

ValueOr CallFunction(Runtime& runtime, const Function& function, const Value& subject,
                     const CallArgs& raw) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Args args, BindArgs(function, raw));
  return function.call(runtime, subject, args);
}

template <typename T>
absl::Status Runtime::Hold(T* object, size_t more_bytes) {
  return object->lease.Grow(&meter_, sizeof(T) + kObjectOverhead + more_bytes);
}

absl::Status Runtime::CheckDepth(int32_t depth) {
  return depth > meter_.max_depth() ? meter_.DepthExhausted() : absl::OkStatus();
}

ValueOr Runtime::String(Text text) {
  SIROCCO_CHAT_RETURN_IF_ERROR(meter_.StepBytes(text.CopyBytes()));
  auto object = std::make_shared<StringObject>(std::move(text));
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(object.get(), object->text.MemoryBytes()));
  return Value(Kind::kString, std::move(object));
}

absl::StatusOr<SequenceRef> Runtime::Sequence(std::vector<Value> items) {
  const size_t bytes = items.capacity() * sizeof(Value);
  SIROCCO_CHAT_RETURN_IF_ERROR(meter_.Step(1 + static_cast<int64_t>(items.size() >> 2)));
  auto object = std::make_shared<SequenceObject>(std::move(items));
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(object.get(), bytes));
  SIROCCO_CHAT_RETURN_IF_ERROR(CheckDepth(object->depth));
  return object;
}

ValueOr Runtime::List(std::vector<Value> items) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(SequenceRef object, Sequence(std::move(items)));
  return Value(Kind::kList, std::move(object));
}

ValueOr Runtime::Tuple(std::vector<Value> items) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(SequenceRef object, Sequence(std::move(items)));
  return Value(Kind::kTuple, std::move(object));
}

ValueOr Runtime::Iterator(std::vector<Value> items) {
  auto object = std::make_shared<IteratorObject>();
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(object.get(), 0));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(object->items, Sequence(std::move(items)));
  SIROCCO_CHAT_RETURN_IF_ERROR(CheckDepth(object->items->depth + 1));
  return Value(Kind::kIterator, std::move(object));
}

ValueOr Runtime::Dict(std::shared_ptr<DictObject> dict) {
  SIROCCO_CHAT_RETURN_IF_ERROR(meter_.Step(1 + static_cast<int64_t>(dict->entries.size())));
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(dict.get(), dict->MemoryBytes()));
  SIROCCO_CHAT_RETURN_IF_ERROR(CheckDepth(dict->depth));
  return Value(Kind::kDict, std::move(dict));
}

ValueOr Runtime::DictView(const Value& dict, DictViewObject::Part part) {
  auto object = std::make_shared<DictViewObject>();
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(object.get(), 0));
  // Shares the dict's ownership through the value that holds it.
  object->dict = std::shared_ptr<const DictObject>(std::make_shared<Value>(dict), &dict.dict());
  object->part = part;
  SIROCCO_CHAT_RETURN_IF_ERROR(CheckDepth(dict.depth() + 1));
  return Value(Kind::kDictView, std::move(object));
}

ValueOr Runtime::Range(int64_t start, int64_t stop, int64_t step, int64_t length, bool trusted) {
  auto object = std::make_shared<RangeObject>();
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(object.get(), 0));
  object->start = start;
  object->stop = stop;
  object->step = step;
  object->length = length;
  object->trusted = trusted;
  return Value(Kind::kRange, std::move(object));
}

ValueOr Runtime::BoundMethod(const Value& self, const Method& method) {
  auto object = std::make_shared<MethodObject>();
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(object.get(), 0));
  object->self = self;
  object->method = &method;
  SIROCCO_CHAT_RETURN_IF_ERROR(CheckDepth(self.depth() + 1));
  return Value(Kind::kMethod, std::move(object));
}

ValueOr Runtime::Undefined(std::string message) {
  auto object = std::make_shared<UndefinedObject>();
  SIROCCO_CHAT_RETURN_IF_ERROR(Hold(object.get(), message.size()));
  object->message = std::move(message);
  return Value(Kind::kUndefined, std::move(object));
}

absl::StatusOr<NamespaceObject*> Runtime::NewNamespace() {
  SIROCCO_CHAT_RETURN_IF_ERROR(meter_.Acquire(sizeof(NamespaceObject)));
  return &namespaces_.emplace_back();
}

absl::Status Runtime::SetAttribute(NamespaceObject* name_space, std::string_view name,
                                   Value value) {
  std::string key(name);
  const auto found = name_space->attributes.find(key);
  if (found != name_space->attributes.end()) {
    found->second = std::move(value);
    return absl::OkStatus();
  }
  constexpr size_t kEntryBytes = 2 * (sizeof(std::string) + sizeof(Value));  // a half-full table
  SIROCCO_CHAT_RETURN_IF_ERROR(meter_.Acquire(kEntryBytes + name.size()));
  name_space->attributes.emplace(std::move(key), std::move(value));
  return absl::OkStatus();
}

absl::StatusOr<LoopObject*> Runtime::NewLoop(SequenceRef items) {
  SIROCCO_CHAT_RETURN_IF_ERROR(meter_.Acquire(sizeof(LoopObject)));
  LoopObject& loop = loops_.emplace_back();
  loop.length = static_cast<int64_t>(items->items.size());
  loop.items = std::move(items);
  return &loop;
}

absl::Status Runtime::Raise(std::string message) {
  raised_ = true;
  return absl::InvalidArgumentError(std::move(message));
}

bool TextBuilder::Reserve(size_t bytes) {
  if (!status_.ok()) return false;
  if (bytes > max_output_bytes_ - text_.size()) {
    status_ = absl::ResourceExhaustedError(
        absl::StrCat("the rendered chat is longer than max_output_bytes = ", max_output_bytes_));
    return false;
  }
  const size_t held = text_.CopyBytes() + bytes;
  if (held <= lease_.bytes()) return true;
  // Doubled as the string is, so that many small appends stay linear; less where that is too much.
  const size_t needed = held - lease_.bytes();
  const size_t wanted = std::max(needed, lease_.bytes());
  Meter& meter = runtime_.meter();
  status_ = lease_.Grow(&meter, wanted <= meter.memory_left() / 2 ? wanted : needed);
  return status_.ok();
}

void TextBuilder::Append(std::string_view bytes, bool trusted) {
  if (Reserve(bytes.size())) text_.Append(bytes, trusted);
}

void TextBuilder::Append(const Text& text, size_t begin, size_t end) {
  if (begin < end && Reserve(end - begin)) text_.Append(text, begin, end);
}

void TextBuilder::AppendRepeated(const Text& text, int64_t times) {
  if (text.empty() || times <= 0) return;
  // Runs that do not merge take memory as well.
  const size_t bytes = text.runs().size() > 1 ? text.CopyBytes() : text.size();
  if (static_cast<uint64_t>(times) > runtime_.meter().memory_left() / bytes) {
    if (status_.ok()) status_ = runtime_.meter().MemoryExhausted();
    return;
  }
  const auto copies = static_cast<size_t>(times);
  if (Reserve(bytes * copies)) text_.AppendRepeated(text, copies);
}

absl::StatusOr<Text> TextBuilder::FinishText() {
  SIROCCO_CHAT_RETURN_IF_ERROR(status_);
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().StepBytes(text_.CopyBytes()));
  lease_.GiveBack();
  return std::move(text_);
}

ValueOr TextBuilder::Finish() {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Text text, FinishText());
  return runtime_.String(std::move(text));
}

absl::StatusOr<int64_t> IntegerArgument(const Value* value, int64_t absent, std::string_view name) {
  if (value == nullptr) return absent;
  if (value->is_integral()) return value->integer();
  if (value->is_undefined()) return TemplateError(value->undefined().message);
  return TemplateError(
      absl::StrCat("argument ", Quoted(name), " must be an int, not ", Quoted(TypeName(*value))));
}

absl::StatusOr<const Text*> TextArgument(const Value* value, std::string_view name) {
  if (value != nullptr && value->is_string()) return &value->text();
  if (value != nullptr && value->is_undefined()) return TemplateError(value->undefined().message);
  return TemplateError(absl::StrCat("argument ", Quoted(name), " must be a str, not ",
                                    Quoted(value == nullptr ? "NoneType" : TypeName(*value))));
}

}  // namespace sirocco::jinja
