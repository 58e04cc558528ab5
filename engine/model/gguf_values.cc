#include "engine/model/gguf_values.h"

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"

namespace sirocco {
namespace {

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

}  // namespace

uint64_t BytesOf(GgufType type) {
  constexpr uint64_t kBytes[kGgufTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<uint32_t>(type)];
}

std::optional<int64_t> LoadInt(GgufType type, const std::byte* data) {
  switch (type) {
    case GgufType::kUint8:
      return Load<uint8_t>(data);
    case GgufType::kInt8:
      return Load<int8_t>(data);
    case GgufType::kUint16:
      return Load<uint16_t>(data);
    case GgufType::kInt16:
      return Load<int16_t>(data);
    case GgufType::kUint32:
      return Load<uint32_t>(data);
    case GgufType::kInt32:
      return Load<int32_t>(data);
    case GgufType::kInt64:
      return Load<int64_t>(data);
    case GgufType::kUint64: {
      const uint64_t value = Load<uint64_t>(data);
      if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> LoadFloat(GgufType type, const std::byte* data) {
  if (type == GgufType::kFloat32) return Load<float>(data);
  if (type == GgufType::kFloat64) return Load<double>(data);
  return std::nullopt;
}

std::string_view LoadString(const std::byte* data) {
  const size_t length = static_cast<size_t>(Load<uint64_t>(data));
  return {reinterpret_cast<const char*>(data + sizeof(uint64_t)), length};
}

absl::Status GgufCursor::Truncated(const std::string& path, std::string_view what) const {
  return InvalidFile(path,
                     absl::StrCat("truncated: ", std::string(what), " at byte ", offset_, " needs ",
                                  missing_, " bytes, the file has ", left(), " left"));
}

void GgufCursor::Skip(uint64_t bytes) {
  if (!ok()) return;
  if (bytes > left()) {
    missing_ = bytes;
    return;
  }
  offset_ += bytes;
}

std::string_view GgufCursor::ReadString() {
  const std::byte* at = data();
  Skip(Read<uint64_t>());
  return ok() ? LoadString(at) : std::string_view();
}

}  // namespace sirocco
