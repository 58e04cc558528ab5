#include "engine/chat/text.h"

#include <algorithm>
#include <utility>

namespace sirocco::jinja {
namespace {

// The run that holds the byte at `offset`.
const Text::Run* RunAt(const absl::InlinedVector<Text::Run, 1>& runs, size_t offset) {
  return std::upper_bound(runs.data(), runs.data() + runs.size(), offset,
                          [](size_t wanted, const Text::Run& run) { return wanted < run.end; });
}

}  // namespace

Text::Text(std::string bytes, bool trusted) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), trusted});
}

bool Text::trusted() const {
  return std::all_of(runs_.begin(), runs_.end(), [](const Run& run) { return run.trusted; });
}

bool Text::TrustedAt(size_t offset) const { return RunAt(runs_, offset)->trusted; }

size_t Text::MemoryBytes() const {
  // Short strings and a single run live within the object.
  const size_t runs = runs_.size() > 1 ? runs_.size() * sizeof(Run) : 0;
  return runs + (bytes_.size() > 15 ? bytes_.size() : 0);
}

void Text::ExtendRun(bool trusted) {
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trusted});
  }
}

void Text::Append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_.append(bytes);
  ExtendRun(trusted);
}

void Text::Append(const Text& other, size_t begin, size_t end) {
  if (begin >= end) return;
  for (const Run* run = RunAt(other.runs_, begin); begin < end; ++run) {
    const size_t stop = std::min(run->end, end);
    Append(other.bytes().substr(begin, stop - begin), run->trusted);
    begin = stop;
  }
}

void Text::AppendRepeated(const Text& other, size_t times) {
  if (other.runs_.size() != 1) {
    for (size_t i = 0; i < times; ++i) Append(other);
    return;
  }
  if (times == 0) return;
  // One run stays one, however often.
  bytes_.reserve(bytes_.size() + other.size() * times);
  if (other.size() == 1) {
    bytes_.append(times, other.bytes_[0]);
  } else {
    for (size_t i = 0; i < times; ++i) bytes_.append(other.bytes_);
  }
  ExtendRun(other.runs_[0].trusted);
}

Text Text::Slice(size_t begin, size_t end) const {
  Text slice;
  slice.Append(*this, begin, end);
  return slice;
}

}  // namespace sirocco::jinja
