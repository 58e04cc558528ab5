#include "server/api/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "server/api/utf8.h"

namespace sirocco {
namespace {

constexpr char kTypePrefix[] = "type.googleapis.com/";

// Percent-encoded (at most three bytes a byte), in the details, and in a violation's description:
// together well below 8 KiB.
constexpr size_t kMaxMessageBytes = 800;
constexpr size_t kMaxQuotedBytes = 64;

void Attach(absl::Status& status, const google::protobuf::Message& detail) {
  status.SetPayload(absl::StrCat(kTypePrefix, detail.GetDescriptor()->full_name()),
                    absl::Cord(detail.SerializeAsString()));
}

}  // namespace

std::string Shortened(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return std::string(text);
  return std::string(text.substr(0, Utf8PrefixLength(text, max_bytes))) + "...";
}

std::string Quoted(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : Shortened(text, kMaxQuotedBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + "\"";
}

absl::Status InvalidField(std::string_view field, std::string_view description) {
  google::rpc::BadRequest detail;
  auto* violation = detail.add_field_violations();
  violation->set_field(std::string(field));
  violation->set_description(Shortened(description, kMaxMessageBytes));
  absl::Status status = absl::InvalidArgumentError(
      Shortened(std::string(field) + ": " + std::string(description), kMaxMessageBytes));
  Attach(status, detail);
  return status;
}

absl::Status InvalidField(std::string_view field, std::string_view value,
                          std::string_view allowed) {
  return InvalidField(field, "is " + std::string(value) + "; allowed: " + std::string(allowed));
}

absl::Status UnsupportedField(std::string_view field) {
  return absl::UnimplementedError(std::string(field) + ": this server does not support it");
}

absl::Status WithRetryInfo(absl::Status status, std::chrono::milliseconds delay) {
  google::rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(delay.count() / 1000);
  detail.mutable_retry_delay()->set_nanos(static_cast<int32_t>(delay.count() % 1000 * 1'000'000));
  Attach(status, detail);
  return status;
}

absl::Status ForClient(const absl::Status& status) {
  if (!absl::IsInternal(status)) return status;
  return absl::InternalError("the server has failed; its log says why");
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  const absl::string_view message = status.message();
  out.set_message(Shortened({message.data(), message.size()}, kMaxMessageBytes));
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    auto* detail = out.add_details();
    detail->set_type_url(std::string(type));
    detail->set_value(std::string(payload));
  });
  return out;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rpc = ToRpcStatus(status);
  // Without details the trailer would only repeat code and message.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), rpc.message(),
                      rpc.details().empty() ? "" : rpc.SerializeAsString());
}

}  // namespace sirocco
