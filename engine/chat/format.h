// Python's two ways to format: "%s" % values and "{}".format(values).
#pragma once

#include "engine/chat/runtime.h"
#include "engine/chat/text.h"

namespace sirocco::jinja {

// %s %r %d %i %u %f %F %e %E %g %G %x %X %o %c %% with flags, width, precision and (name). `values`
// is a tuple, a dict, or the only value.
ValueOr FormatPercent(Runtime& runtime, const Text& format, const Value& values);

// {} {0} {name} with .attribute, [index], !s, !r and a format specification of fill, alignment,
// sign, width, comma, precision and the types s d f F e E g G x X o b %.
ValueOr FormatBraces(Runtime& runtime, const Text& format, const CallArgs& args);

}  // namespace sirocco::jinja
