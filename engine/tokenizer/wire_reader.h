// Protocol buffers' wire format, of a message that nobody vouches for: field by field, each within
// the message's bytes. https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sirocco {

struct WireField {
  uint64_t number = 0;
  enum class Kind { kVarint, kFixed32, kFixed64, kBytes } kind = Kind::kVarint;
  uint64_t value = 0;      // of kVarint, kFixed32, kFixed64: their bits
  std::string_view bytes;  // of kBytes; a view into the message
};

// One thread at a time; the message must outlive it.
class WireReader {
 public:
  explicit WireReader(std::string_view message) : message_(message) {}

  // The next field; nullopt: at the end, or not ok().
  std::optional<WireField> Next();
  // False once something was not in the wire format: an end within a field, a varint of more than
  // 64 bits, a field number of 0, a group.
  bool ok() const { return ok_; }
  size_t position() const { return position_; }  // bytes that were read

 private:
  // nullopt: it is not in the wire format.
  std::optional<uint64_t> Varint();
  std::optional<uint64_t> Fixed(size_t bytes);
  std::optional<uint64_t> Value(uint64_t wire_type, WireField* field);

  const std::string_view message_;
  size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace sirocco
