#include "server/api/parse.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/wire_format_lite.h>

#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"

namespace sirocco {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr int kMaxDepth = 100;  // protobuf's own limit

// Walks the wire format of one message by its descriptor.
class Utf8Walker {
 public:
  explicit Utf8Walker(std::string_view bytes)
      : in_(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size())) {}

  // True: found, and path() is set. False: there is nothing, or malformed_ ended the search.
  bool Walk(const Descriptor& descriptor, const std::string& prefix, int depth) {
    std::map<int, int> seen;  // field number -> elements so far, of repeated fields
    while (in_.BytesUntilLimit() != 0) {
      const uint32_t tag = in_.ReadTag();
      if (tag == 0) return Malformed();
      const FieldDescriptor* field =
          descriptor.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
      const bool walked =
          field != nullptr && depth < kMaxDepth &&
          WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED &&
          (field->type() == FieldDescriptor::TYPE_STRING ||
           field->type() == FieldDescriptor::TYPE_MESSAGE);
      if (!walked) {
        if (!WireFormatLite::SkipField(&in_, tag)) return Malformed();
        continue;
      }
      std::string path = absl::StrCat(prefix, field->name());
      if (field->is_repeated()) absl::StrAppend(&path, "[", seen[field->number()]++, "]");
      if (Enter(*field, path, depth)) return true;
      if (malformed_) return false;
    }
    return false;
  }

  const std::string& path() const { return path_; }

 private:
  bool Malformed() {
    malformed_ = true;
    return false;
  }

  bool Enter(const FieldDescriptor& field, const std::string& path, int depth) {
    uint32_t size = 0;
    const void* data = nullptr;
    int available = 0;
    if (!in_.ReadVarint32(&size) || size > static_cast<uint32_t>(kMaxSize)) return Malformed();
    if (size == 0) return false;
    if (in_.BytesUntilLimit() != -1 && static_cast<int>(size) > in_.BytesUntilLimit()) {
      return Malformed();
    }
    if (!in_.GetDirectBufferPointer(&data, &available) || available < static_cast<int>(size)) {
      return Malformed();
    }
    if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      const auto limit = in_.PushLimit(static_cast<int>(size));
      const bool found = Walk(*field.message_type(), path + ".", depth + 1);
      in_.PopLimit(limit);
      return found;
    }
    // The parser's own check, so that both agree.
    if (!WireFormatLite::VerifyUtf8String(static_cast<const char*>(data), static_cast<int>(size),
                                          WireFormatLite::PARSE, path.c_str())) {
      path_ = path;
      return true;
    }
    if (!in_.Skip(static_cast<int>(size))) return Malformed();
    return false;
  }

  static constexpr int kMaxSize = std::numeric_limits<int>::max();
  CodedInputStream in_;
  std::string path_;
  bool malformed_ = false;
};

// Whether a message has no more than kMaxRequestFields, counted as far as its bytes are one.
class FieldCounter {
 public:
  explicit FieldCounter(std::string_view bytes)
      : in_(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size())) {}

  // nullptr: of no type that we know. False: malformed, or too many.
  bool Count(const Descriptor* descriptor, int depth) {
    int groups = 0;  // open ones, of unknown fields: no message of ours has any
    while (in_.BytesUntilLimit() != 0) {
      const uint32_t tag = in_.ReadTag();
      if (tag == 0) return false;
      if (--left_ < 0) return false;
      const auto type = WireFormatLite::GetTagWireType(tag);
      if (type == WireFormatLite::WIRETYPE_START_GROUP) {
        ++groups;
      } else if (type == WireFormatLite::WIRETYPE_END_GROUP) {
        --groups;
      } else if (!Enter(groups == 0 ? descriptor : nullptr, tag, depth)) {
        return false;
      }
    }
    return true;
  }

  bool too_many() const { return left_ < 0; }

 private:
  bool Enter(const Descriptor* descriptor, uint32_t tag, int depth) {
    const FieldDescriptor* field =
        descriptor == nullptr
            ? nullptr
            : descriptor->FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    if (field == nullptr || field->type() != FieldDescriptor::TYPE_MESSAGE || depth >= kMaxDepth ||
        WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      return WireFormatLite::SkipField(&in_, tag);
    }
    int size = 0;
    if (!in_.ReadVarintSizeAsInt(&size)) return false;
    const auto limit = in_.PushLimit(size);
    const bool counted = Count(field->message_type(), depth + 1);
    in_.PopLimit(limit);
    return counted;
  }

  CodedInputStream in_;
  int64_t left_ = kMaxRequestFields;
};

// A field takes two bytes at least: of small requests nothing need be counted.
bool HasTooManyFields(std::string_view bytes, const Descriptor& descriptor) {
  if (bytes.size() <= 2 * static_cast<size_t>(kMaxRequestFields)) return false;
  FieldCounter counter(bytes);
  counter.Count(&descriptor, 0);
  return counter.too_many();
}

}  // namespace

std::optional<std::string> FindInvalidUtf8(std::string_view bytes, const Descriptor& descriptor) {
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) return std::nullopt;
  const google::protobuf::LogSilencer silencer;  // a client's mistake is no line of our log
  Utf8Walker walker(bytes);
  if (!walker.Walk(descriptor, "", 0)) return std::nullopt;
  return walker.path();
}

absl::Status ParseMessage(std::string_view bytes, google::protobuf::Message& message) {
  const std::string& type = message.GetDescriptor()->full_name();
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the request of ", bytes.size(), " bytes is too large to be a ", type));
  }
  if (HasTooManyFields(bytes, *message.GetDescriptor())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the request of ", bytes.size(), " bytes has more than ", kMaxRequestFields, " fields"));
  }
  const google::protobuf::LogSilencer silencer;
  if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::OkStatus();
  }
  if (const auto field = FindInvalidUtf8(bytes, *message.GetDescriptor())) {
    return InvalidField(*field, "is not valid UTF-8");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the request's ", bytes.size(), " bytes are not a valid ", type));
}

}  // namespace sirocco
