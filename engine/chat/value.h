// Values of the template language, with Python's types. Values are immutable except namespaces,
// loops and iterators, and never form a cycle of owners: what can be changed is owned by the
// Runtime and only pointed to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "engine/chat/meter.h"
#include "engine/chat/text.h"

namespace sirocco::jinja {

struct StringObject;
struct SequenceObject;
struct DictObject;
struct DictViewObject;
struct RangeObject;
struct IteratorObject;
struct UndefinedObject;
struct MethodObject;
struct NamespaceObject;
struct LoopObject;
struct MacroObject;
struct Function;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kDictView,
  kRange,
  kIterator,
  kMethod,
  kNamespace,
  kLoop,
  kMacro,
  kFunction,
};

class Value {
 public:
  Value() = default;  // None
  // Scalars are trusted where the template alone made them: it decides about their digits.
  static Value None(bool trusted = false);
  static Value Bool(bool value, bool trusted = false);
  static Value Int(int64_t value, bool trusted = false);
  static Value Float(double value, bool trusted = false);
  static Value Pointer(Kind kind, const void* pointer);  // kNamespace, kLoop, kMacro, kFunction
  Value(Kind kind, std::shared_ptr<const void> object);  // the kinds between

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }

  // The kind must be the one asked for.
  int64_t integer() const { return integer_; }  // kInt, kBool
  bool boolean() const { return integer_ != 0; }
  double real() const { return kind_ == Kind::kFloat ? real_ : static_cast<double>(integer_); }
  const StringObject& string() const;
  const Text& text() const;
  std::string_view bytes() const;  // of a string
  const SequenceObject& sequence() const;
  const std::vector<Value>& items() const;  // kList, kTuple
  const DictObject& dict() const;
  const DictViewObject& view() const;
  const RangeObject& range() const;
  const IteratorObject& iterator() const;
  const UndefinedObject& undefined() const;
  const MethodObject& method() const;
  NamespaceObject& name_space() const;
  LoopObject& loop() const;
  const MacroObject& macro() const;
  const Function& function() const;

  // Whether everything in it is trusted. Empty containers are not: nothing tells whose they are.
  bool trusted() const;
  // Levels of containers in it; bounded, so that walking and destroying a value is too.
  int32_t depth() const;
  // Python's `is`.
  bool SameAs(const Value& other) const;

 private:
  Kind kind_ = Kind::kNone;
  bool trusted_ = false;
  union {
    int64_t integer_ = 0;
    double real_;
    const void* pointer_;
  };
  std::shared_ptr<const void> object_;
};

struct Object {
  Lease lease;
};

struct StringObject : Object {
  explicit StringObject(Text value) : text(std::move(value)) {}
  const Text text;
};

struct SequenceObject : Object {
  explicit SequenceObject(std::vector<Value> values);
  const std::vector<Value> items;
  int32_t depth = 1;
  bool trusted = false;
};

// Insertion order is kept. Keys are scalars and strings; 1, 1.0 and true are one key.
struct DictObject : Object {
  using Entry = std::pair<Value, Value>;

  DictObject() = default;
  static bool CanBeKey(const Value& key);
  // Replaces the value where the key is there already. CanBeKey(key).
  void Set(Value key, Value value);
  const Value* Find(const Value& key) const;  // nullptr also for what cannot be a key
  const Value* Find(std::string_view key) const;
  size_t MemoryBytes() const;

  std::vector<Entry> entries;
  int32_t depth = 1;
  bool trusted = false;

 private:
  struct KeyHash {
    using is_transparent = void;
    const DictObject* dict;
    size_t operator()(uint32_t entry) const;
    size_t operator()(const Value& key) const;
    size_t operator()(std::string_view key) const;
  };
  struct KeyEqual {
    using is_transparent = void;
    const DictObject* dict;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t entry, const Value& key) const;
    bool operator()(uint32_t entry, std::string_view key) const;
  };
  // Positions of the entries; made when there are too many to look through.
  std::unique_ptr<absl::flat_hash_set<uint32_t, KeyHash, KeyEqual>> index_;

  template <typename Key>
  const Value* FindEntry(const Key& key) const;
};

struct DictViewObject : Object {
  enum class Part { kKeys, kValues, kItems };
  std::shared_ptr<const DictObject> dict;
  Part part = Part::kKeys;
};

struct RangeObject : Object {
  int64_t start = 0;
  int64_t stop = 0;  // as it is printed
  int64_t step = 1;
  int64_t length = 0;  // at most kMaxRange
  bool trusted = false;
  // Every element fits into 64 bits, but index * step alone may not: it wraps, and wraps back.
  int64_t At(int64_t index) const {
    return static_cast<int64_t>(static_cast<uint64_t>(start) +
                                static_cast<uint64_t>(index) * static_cast<uint64_t>(step));
  }
};

// Python's generators. Their items are made at once; each is given out once.
struct IteratorObject : Object {
  std::shared_ptr<const SequenceObject> items;
  mutable size_t next = 0;
};

struct UndefinedObject : Object {
  std::string message;  // what an operation on it answers
};

struct Method;
// A method bound to its object: message.items, text.split.
struct MethodObject : Object {
  Value self;
  const Method* method = nullptr;
};

// "dict", "str", ...: Python's name of the value's type.
std::string_view TypeName(const Value& value);

}  // namespace sirocco::jinja
