#include "engine/tokenizer/wire_reader.h"

namespace sirocco {

std::optional<uint64_t> WireReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && position_ < message_.size(); shift += 7) {
    const auto byte = static_cast<uint8_t>(message_[position_++]);
    if (shift == 63 && byte > 1) return std::nullopt;
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

std::optional<uint64_t> WireReader::Fixed(size_t bytes) {
  if (message_.size() - position_ < bytes) return std::nullopt;
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(message_[position_++])) << 8 * i;
  }
  return value;
}

std::optional<uint64_t> WireReader::Value(uint64_t wire_type, WireField* field) {
  switch (wire_type) {
    case 0:
      field->kind = WireField::Kind::kVarint;
      return Varint();
    case 1:
      field->kind = WireField::Kind::kFixed64;
      return Fixed(8);
    case 2: {
      field->kind = WireField::Kind::kBytes;
      const std::optional<uint64_t> size = Varint();
      if (!size || *size > message_.size() - position_) return std::nullopt;
      field->bytes = message_.substr(position_, *size);
      position_ += *size;
      return 0;
    }
    case 5:
      field->kind = WireField::Kind::kFixed32;
      return Fixed(4);
    default:
      return std::nullopt;
  }
}

std::optional<WireField> WireReader::Next() {
  if (!ok_ || position_ == message_.size()) return std::nullopt;
  const std::optional<uint64_t> key = Varint();
  WireField field;
  const std::optional<uint64_t> value = key ? Value(*key & 7, &field) : std::nullopt;
  ok_ = value && *key >> 3 != 0;
  if (!ok_) return std::nullopt;
  field.number = *key >> 3;
  field.value = *value;
  return field;
}

}  // namespace sirocco
