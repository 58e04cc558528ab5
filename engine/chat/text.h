// The template engine's strings: bytes that remember whether they are trusted.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/container/inlined_vector.h"

namespace sirocco::jinja {

// Valid UTF-8 with the provenance of every byte, as runs. Trusted bytes came from the template's
// own text and literals or from its bos/eos variables.
class Text {
 public:
  struct Run {
    size_t end;  // byte offset behind the run
    bool trusted;
  };

  Text() = default;
  Text(std::string bytes, bool trusted);

  std::string_view bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // Every byte is; so an empty text is.
  bool trusted() const;
  // Of the byte at `offset` < size().
  bool TrustedAt(size_t offset) const;
  // Ascending, neighbours differ, the last ends at size().
  const absl::InlinedVector<Run, 1>& runs() const { return runs_; }
  // What it holds in memory beside the object itself.
  size_t MemoryBytes() const;
  // What copying it moves: bytes and runs.
  size_t CopyBytes() const { return bytes_.size() + runs_.size() * sizeof(Run); }

  void Append(std::string_view bytes, bool trusted);
  void Append(const Text& other) { Append(other, 0, other.size()); }
  // Bytes [begin, end) of `other`, which is not this text.
  void Append(const Text& other, size_t begin, size_t end);
  // `times` >= 0 copies of `other`, which is not this text.
  void AppendRepeated(const Text& other, size_t times);
  Text Slice(size_t begin, size_t end) const;

 private:
  void ExtendRun(bool trusted);

  std::string bytes_;
  absl::InlinedVector<Run, 1> runs_;
};

}  // namespace sirocco::jinja
