#include "server/api/parse.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <memory>

#include "sirocco/v1/inference.pb.h"

namespace sirocco {
namespace {

using std::string_literals::operator""s;

// A field of wire type 2.
std::string Field(int number, const std::string& bytes) {
  EXPECT_LT(bytes.size(), 128u);
  const int tag = number << 3 | 2;
  std::string out;
  if (tag >= 128) out += static_cast<char>(0x80 | (tag & 0x7f));
  out += static_cast<char>(tag >= 128 ? tag >> 7 : tag);
  return out + static_cast<char>(bytes.size()) + bytes;
}

absl::Status Parse(const std::string& bytes) {
  v1::GenerateRequest request;
  return ParseMessage(bytes, request);
}

TEST(ParseMessage, TakesWhatIsValid) {
  v1::GenerateRequest request;
  request.set_prompt("héllo");
  (*request.mutable_sampling()->mutable_logit_bias())[7] = 1.5f;
  v1::GenerateRequest parsed;
  ASSERT_TRUE(ParseMessage(request.SerializeAsString(), parsed).ok());
  EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
  EXPECT_TRUE(ParseMessage("", parsed).ok());
}

TEST(ParseMessage, BytesThatAreNoMessage) {
  for (const std::string& bytes : {"\xff\xff\xff\xff"s, "\x0a\x7f"s, "\x0a"s, "\x07"s, "\0"s,
                                   "\x12\x05zz"s, "\x2a\x03\x0d\x00"s, "\x0c"s}) {
    const absl::Status status = Parse(bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("sirocco.v1.GenerateRequest"), absl::string_view::npos)
        << status;
  }
}

std::string Times(int64_t count, const std::string& bytes) {
  std::string out;
  out.reserve(count * bytes.size());
  for (int64_t i = 0; i < count; ++i) out += bytes;
  return out;
}

std::string Varint(size_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

TEST(ParseMessage, NoMoreThanSoManyFields) {
  const std::string messages = Times(kMaxRequestFields - 1, "\x0a\0"s);
  const auto chat = [](const std::string& bytes) { return "\x22"s + Varint(bytes.size()) + bytes; };
  EXPECT_TRUE(Parse(chat(messages)).ok());
  const std::string tail = "\x78\x01\x78\x01";  // an unknown number
  for (const std::string& bytes :
       {chat(messages + "\x0a\0"s), chat(messages) + tail,
        Times(kMaxRequestFields + 1, "\x7a\0"s),                    // unknown texts
        "\x7b"s + Times(kMaxRequestFields, "\x7b\x7c"s) + "\x7c"s,  // unknown groups
        Times(kMaxRequestFields, "\x32\x02\x0a\0"s)}) {             // a stop string in each
    const absl::Status status = Parse(bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("more than 1048576 fields"), absl::string_view::npos) << status;
  }
}

// A bias for each id of the largest vocabulary, and as many ids as fit into a message.
TEST(ParseMessage, LargeRequestsThatAreNone) {
  v1::GenerateRequest request;
  for (uint32_t id = 0; id < 262'144; ++id) {
    (*request.mutable_sampling()->mutable_logit_bias())[id] = 1;
    request.mutable_prompt_token_ids()->add_ids(id);
  }
  for (uint32_t id = 0; id < 2'000'000; ++id) request.mutable_prompt_token_ids()->add_ids(id);
  request.set_model(std::string(1 << 20, 'x'));
  const std::string bytes = request.SerializeAsString();
  ASSERT_GT(bytes.size(), 2u * kMaxRequestFields);
  v1::GenerateRequest parsed;
  ASSERT_TRUE(ParseMessage(bytes, parsed).ok());
  EXPECT_EQ(parsed.prompt_token_ids().ids_size(), request.prompt_token_ids().ids_size());
  EXPECT_EQ(parsed.sampling().logit_bias_size(), 262'144);
}

TEST(ParseMessage, InvalidUtf8IsNamed) {
  const std::string bad = "ab\xff";
  const struct {
    std::string bytes;
    std::string field;
  } cases[] = {
      {Field(2, bad), "prompt"},
      {Field(1, "m") + Field(10, "\xc3\x28"), "request_id"},
      {Field(6, Field(1, "fine") + Field(1, "\xed\xa0\x80")), "stop.strings[1]"},
      {Field(4, Field(1, Field(1, "user")) + Field(1, Field(2, bad))), "chat.messages[1].content"},
      {Field(17, Field(3, Field(1, "a") + Field(1, bad))), "constraint.choices.values[1]"},
      // Behind fields that are skipped: unknown ones, a packed one, a map.
      {"\x98\x06\x01"s + Field(15, "") + Field(3, Field(1, "\x01\x02")) + Field(2, bad), "prompt"},
      {Field(5, Field(11, "\x08\x01\x15\x00\x00\x80\x3f"s)) + Field(2, bad), "prompt"},
      // An unknown group.
      {"\xa3\x06\x08\x01\xa4\x06"s + Field(2, bad), "prompt"},
  };
  for (const auto& [bytes, field] : cases) {
    const absl::Status status = Parse(bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(status.message()), field + ": is not valid UTF-8");
    EXPECT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.BadRequest").has_value());
  }
}

TEST(ParseMessage, BytesFieldsMayHoldAnything) {
  v1::TokenLogprob message;
  EXPECT_TRUE(ParseMessage(Field(5, "\xff\xfe"), message).ok());
}

TEST(FindInvalidUtf8, EndsWhereBytesAreNoFields) {
  const auto& descriptor = *v1::GenerateRequest::descriptor();
  const std::string bad = Field(2, "\xff");
  EXPECT_EQ(FindInvalidUtf8(bad, descriptor), "prompt");
  for (const std::string& before :
       {"\0"s, "\x07"s, "\x0a\x7f"s, "\x0a\xff\xff\xff\xff\x0f"s, "\x22\x05\x0a\x7f"s,
        "\x22\x01\0"s, "\xa3\x06"s, "\x0c"s, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"s}) {
    EXPECT_EQ(FindInvalidUtf8(before + bad, descriptor), std::nullopt);
  }
  EXPECT_EQ(FindInvalidUtf8("", descriptor), std::nullopt);
}

// Each prefix of a message with a bad string ends without a report or with the right one.
TEST(FindInvalidUtf8, Truncated) {
  const std::string whole =
      Field(1, "name") + Field(4, Field(1, Field(1, "user") + Field(2, "\xff")));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(FindInvalidUtf8(whole.substr(0, size), *v1::GenerateRequest::descriptor()),
              std::nullopt)
        << size;
  }
  EXPECT_EQ(FindInvalidUtf8(whole, *v1::GenerateRequest::descriptor()), "chat.messages[0].content");
}

class OtherShapes : public testing::Test {
 protected:
  OtherShapes() {
    google::protobuf::FileDescriptorProto file;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
        R"pb(
          name: "shapes.proto"
          syntax: "proto3"
          message_type {
            name: "Shape"
            field {
              name: "names"
              number: 1
              label: LABEL_REPEATED
              type: TYPE_MESSAGE
              type_name: ".Shape.NamesEntry"
            }
            field {
              name: "self"
              number: 2
              label: LABEL_OPTIONAL
              type: TYPE_MESSAGE
              type_name: ".Shape"
            }
            field { name: "text" number: 3 label: LABEL_OPTIONAL type: TYPE_STRING }
            nested_type {
              name: "NamesEntry"
              options { map_entry: true }
              field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
              field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
            }
          })pb",
        &file));
    const auto* built = pool_.BuildFile(file);
    EXPECT_NE(built, nullptr);
    shape_ = built->FindMessageTypeByName("Shape");
  }

  google::protobuf::DescriptorPool pool_;
  const google::protobuf::Descriptor* shape_ = nullptr;
};

TEST_F(OtherShapes, Maps) {
  const std::string good = Field(1, Field(1, "k") + Field(2, "v"));
  EXPECT_EQ(FindInvalidUtf8(good, *shape_), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8(good + Field(1, Field(1, "\xff")), *shape_), "names[1].key");
  EXPECT_EQ(FindInvalidUtf8(Field(1, Field(1, "k") + Field(2, "\xff")), *shape_), "names[0].value");
}

TEST_F(OtherShapes, NestingIsBounded) {
  // A string below `depth` messages, its sizes as varints of two bytes.
  const auto nested = [](int depth) {
    std::string bytes = Field(3, "\xff");
    for (int i = 0; i < depth; ++i) {
      const size_t size = bytes.size();
      bytes = std::string{'\x12', static_cast<char>(0x80 | (size & 0x7f)),
                          static_cast<char>(size >> 7)} +
              bytes;
    }
    return bytes;
  };
  std::string path;
  for (int i = 0; i < 50; ++i) path += "self.";
  EXPECT_EQ(FindInvalidUtf8(nested(50), *shape_), path + "text");
  EXPECT_EQ(FindInvalidUtf8(nested(5000), *shape_), std::nullopt);
}

}  // namespace
}  // namespace sirocco
