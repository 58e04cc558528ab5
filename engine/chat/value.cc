#include "engine/chat/value.h"

#include <algorithm>
#include <cmath>

#include "absl/hash/hash.h"

namespace sirocco::jinja {
namespace {

// Entries of a dict that are looked through one by one.
constexpr size_t kMaxLinear = 8;

template <typename T>
const T& As(const std::shared_ptr<const void>& object) {
  return *static_cast<const T*>(object.get());
}

bool KeysEqual(const Value& a, const Value& b) {
  if (a.is_string() || b.is_string()) {
    return a.is_string() && b.is_string() && a.bytes() == b.bytes();
  }
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.real() == b.real();
  return a.is_none() && b.is_none();
}

}  // namespace

Value Value::None(bool trusted) {
  Value value;
  value.trusted_ = trusted;
  return value;
}

Value Value::Bool(bool boolean, bool trusted) {
  Value value = Int(boolean ? 1 : 0, trusted);
  value.kind_ = Kind::kBool;
  return value;
}

Value Value::Int(int64_t integer, bool trusted) {
  Value value;
  value.kind_ = Kind::kInt;
  value.trusted_ = trusted;
  value.integer_ = integer;
  return value;
}

Value Value::Float(double real, bool trusted) {
  Value value;
  value.kind_ = Kind::kFloat;
  value.trusted_ = trusted;
  value.real_ = real;
  return value;
}

Value Value::Pointer(Kind kind, const void* pointer) {
  Value value;
  value.kind_ = kind;
  value.pointer_ = pointer;
  return value;
}

Value::Value(Kind kind, std::shared_ptr<const void> object)
    : kind_(kind), object_(std::move(object)) {}

const StringObject& Value::string() const { return As<StringObject>(object_); }
const Text& Value::text() const { return string().text; }
std::string_view Value::bytes() const { return text().bytes(); }
const SequenceObject& Value::sequence() const { return As<SequenceObject>(object_); }
const std::vector<Value>& Value::items() const { return sequence().items; }
const DictObject& Value::dict() const { return As<DictObject>(object_); }
const DictViewObject& Value::view() const { return As<DictViewObject>(object_); }
const RangeObject& Value::range() const { return As<RangeObject>(object_); }
const IteratorObject& Value::iterator() const { return As<IteratorObject>(object_); }
const UndefinedObject& Value::undefined() const { return As<UndefinedObject>(object_); }
const MethodObject& Value::method() const { return As<MethodObject>(object_); }

// What can be changed was made by the Runtime as such; only the values point to it as const.
NamespaceObject& Value::name_space() const {
  return *static_cast<NamespaceObject*>(const_cast<void*>(pointer_));
}
LoopObject& Value::loop() const { return *static_cast<LoopObject*>(const_cast<void*>(pointer_)); }
const MacroObject& Value::macro() const { return *static_cast<const MacroObject*>(pointer_); }
const Function& Value::function() const { return *static_cast<const Function*>(pointer_); }

bool Value::trusted() const {
  switch (kind_) {
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return trusted_;
    case Kind::kString:
      return text().trusted();
    case Kind::kList:
    case Kind::kTuple:
      return sequence().trusted;
    case Kind::kDict:
      return dict().trusted;
    case Kind::kDictView:
      return view().dict->trusted;
    case Kind::kRange:
      return range().trusted;
    default:
      return false;
  }
}

int32_t Value::depth() const {
  switch (kind_) {
    case Kind::kList:
    case Kind::kTuple:
      return sequence().depth;
    case Kind::kDict:
      return dict().depth;
    case Kind::kDictView:
      return view().dict->depth + 1;
    case Kind::kIterator:
      return iterator().items->depth + 1;
    case Kind::kMethod:
      return method().self.depth() + 1;
    default:
      return 0;
  }
}

bool Value::SameAs(const Value& other) const {
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return integer_ == other.integer_;
    case Kind::kFloat:
      return real_ == other.real_;
    case Kind::kString:
      // Whether equal strings are one object is CPython's affair; names and literals are.
      return bytes() == other.bytes();
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kMacro:
    case Kind::kFunction:
      return pointer_ == other.pointer_;
    default:
      return object_ == other.object_;
  }
}

SequenceObject::SequenceObject(std::vector<Value> values)
    : items(std::move(values)), trusted(!items.empty()) {
  for (const Value& item : items) {
    depth = std::max(depth, item.depth() + 1);
    trusted = trusted && item.trusted();
  }
}

bool DictObject::CanBeKey(const Value& key) {
  return key.is_string() || key.is_number() || key.is_none();
}

size_t DictObject::KeyHash::operator()(uint32_t entry) const {
  return (*this)(dict->entries[entry].first);
}

size_t DictObject::KeyHash::operator()(std::string_view key) const {
  return absl::Hash<std::string_view>()(key);
}

size_t DictObject::KeyHash::operator()(const Value& key) const {
  if (key.is_string()) return (*this)(key.bytes());
  if (key.is_integral()) return absl::Hash<double>()(key.real());
  if (key.is(Kind::kFloat)) return absl::Hash<double>()(key.real());
  return 0;
}

bool DictObject::KeyEqual::operator()(uint32_t entry, const Value& key) const {
  return KeysEqual(dict->entries[entry].first, key);
}

bool DictObject::KeyEqual::operator()(uint32_t entry, std::string_view key) const {
  const Value& own = dict->entries[entry].first;
  return own.is_string() && own.bytes() == key;
}

template <typename Key>
const Value* DictObject::FindEntry(const Key& key) const {
  if (index_ != nullptr) {
    const auto found = index_->find(key);
    return found == index_->end() ? nullptr : &entries[*found].second;
  }
  const KeyEqual equal{this};
  for (uint32_t i = 0; i < entries.size(); ++i) {
    if (equal(i, key)) return &entries[i].second;
  }
  return nullptr;
}

const Value* DictObject::Find(const Value& key) const {
  return CanBeKey(key) ? FindEntry(key) : nullptr;
}

const Value* DictObject::Find(std::string_view key) const { return FindEntry(key); }

void DictObject::Set(Value key, Value value) {
  depth = std::max(depth, value.depth() + 1);
  trusted = (trusted || entries.empty()) && key.trusted() && value.trusted();
  // The entries are this object's own, so a found value may be changed.
  if (Value* found = const_cast<Value*>(Find(key)); found != nullptr) {
    *found = std::move(value);
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
  if (index_ != nullptr) {
    index_->insert(static_cast<uint32_t>(entries.size() - 1));
  } else if (entries.size() > kMaxLinear) {
    index_ = std::make_unique<absl::flat_hash_set<uint32_t, KeyHash, KeyEqual>>(0, KeyHash{this},
                                                                                KeyEqual{this});
    for (uint32_t i = 0; i < entries.size(); ++i) index_->insert(i);
  }
}

size_t DictObject::MemoryBytes() const {
  return entries.capacity() * sizeof(Entry) +
         (index_ == nullptr ? 0 : index_->capacity() * (sizeof(uint32_t) + 1));
}

std::string_view TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kDictView:
      switch (value.view().part) {
        case DictViewObject::Part::kKeys:
          return "dict_keys";
        case DictViewObject::Part::kValues:
          return "dict_values";
        case DictViewObject::Part::kItems:
          return "dict_items";
      }
      return "dict_items";
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return "generator";
    case Kind::kMethod:
      return "method";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kMacro:
      return "Macro";
    case Kind::kFunction:
      return "function";
  }
  return "object";
}

}  // namespace sirocco::jinja
