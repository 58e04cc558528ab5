// value.name and value[key], as jinja2's immutable sandbox finds them.
#pragma once

#include <string_view>

#include "engine/chat/runtime.h"
#include "engine/chat/value.h"

namespace sirocco::jinja {

// value.name: a method or attribute first, then a key. What is not there is undefined; an attribute
// of an undefined value is an error.
ValueOr GetAttribute(Runtime& runtime, const Value& value, std::string_view name);
// value[key]: a key or index first, then a method or attribute.
ValueOr GetItem(Runtime& runtime, const Value& value, const Value& key);

// The methods of a type (string_methods.cc, container_methods.cc); nullptr for unknown names.
const Method* FindMethod(const Value& value, std::string_view name);
const Method* FindStringMethod(std::string_view name);
const Method* FindContainerMethod(const Value& value, std::string_view name);

// What an absent attribute or element says when it is used.
ValueOr UndefinedElement(Runtime& runtime, const Value& value, const Value& key);

}  // namespace sirocco::jinja
