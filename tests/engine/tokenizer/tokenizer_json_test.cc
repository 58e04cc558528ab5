// What a tokenizer.json may hold, and what becomes of one that holds something else.
#include "engine/tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/byte_level.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace sirocco {
namespace {

using nlohmann::json;

// All bytes, "ab" and "abc" by merges, and a control token.
json Small() {
  json vocab = json::object();
  for (int b = 0; b < 256; ++b) vocab[ByteLevelCharacter(static_cast<uint8_t>(b))] = b;
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  return json{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", {{{"id", 258}, {"content", "<s>"}, {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", json::array({"ab", "c"})}}}}};
}

absl::Status Refusal(const json& file) { return TokenizerFromJson(file.dump()).status(); }

TEST(TokenizerJsonTest, BothKindsOfMergesAreRead) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(Small().dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Ids(**tokenizer, "abc<s>", true), (std::vector<int32_t>{257, 258}));
  EXPECT_EQ(Ids(**tokenizer, "<s>", false), (std::vector<int32_t>{'<', 's', '>'}));
  EXPECT_EQ((*tokenizer)->vocab_size(), 259);
  EXPECT_TRUE((*tokenizer)->IsSpecial(258));
  EXPECT_FALSE((*tokenizer)->IsSpecial(257));
  EXPECT_FALSE((*tokenizer)->IsSpecial(-1));
  EXPECT_EQ((*tokenizer)->TokenBytes(259), "");
}

// As Hugging Face has it: an entry keeps its id, the others follow the vocabulary.
TEST(TokenizerJsonTest, AddedTokensGetTheIdsOfTheReference) {
  json file = Small();
  file["added_tokens"] = {{{"id", 5}, {"content", "<s>"}},
                          {{"id", 260}, {"content", "ab"}},
                          {{"id", 7000}, {"content", "<t>"}}};
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(file.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Ids(**tokenizer, "<t>ab<s>", false), (std::vector<int32_t>{259, 256, 258}));
  EXPECT_EQ((*tokenizer)->vocab_size(), 260);
}

// The normaliser makes much of little.
TEST(TokenizerJsonTest, AddedTokensThatGrowAreRefused) {
  json file = Small();
  file["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(64, 'b')}};
  file["added_tokens"] = json::array();
  for (int i = 0; i < 500; ++i) {
    file["added_tokens"].push_back({{"id", 258 + i},
                                    {"content", std::string(50, 'a') + std::to_string(i)},
                                    {"normalized", true}});
  }
  EXPECT_EQ(Refusal(file).message(),
            "its added tokens have more than 1048576 bytes when normalised");
}

TEST(TokenizerJsonTest, ModelMayLackItsType) {
  json file = Small();
  file["model"].erase("type");
  file["model"]["dropout"] = 0.0;
  file["model"]["unk_token"] = "<unk>";  // never needed: every byte has a token
  file["padding"] = {{"strategy", "BatchLongest"}};
  EXPECT_TRUE(Refusal(file).ok()) << Refusal(file);
}

TEST(TokenizerJsonTest, TemplatesGoAroundTheText) {
  json file = Small();
  const json special = {{"<s>", {{"id", "<s>"}, {"ids", {258}}, {"tokens", {"<s>"}}}}};
  const json piece = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  file["post_processor"] = {{"type", "Sequence"},
                            {"processors",
                             {{{"type", "ByteLevel"}, {"add_prefix_space", true}},
                              {{"type", "TemplateProcessing"},
                               {"single", {piece, text, piece, piece}},
                               {"pair", json::array()},
                               {"special_tokens", special}}}}};
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(file.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("ab", {}), (std::vector<int32_t>{258, 256, 258, 258}));
  EXPECT_EQ(Ids(**tokenizer, "ab", false), (std::vector<int32_t>{256}));
  EXPECT_EQ(*(*tokenizer)->EncodeChat({"ab", {true, true}}), (std::vector<int32_t>{256}));
}

TEST(TokenizerJsonTest, WhatIsNotSupportedIsNamed) {
  struct Case {
    const char* pointer;
    json value;
    const char* message;
  };
  const Case cases[] = {
      {"/normalizer",
       {{"type", "BertNormalizer"}},
       "normalizer: type 'BertNormalizer' is not supported; supported: NFC"},
      {"/normalizer",
       {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "ByteLevel"}}}}},
       "normalizer.normalizers[1]: type 'ByteLevel'"},
      {"/pre_tokenizer", {{"type", "UnicodeScripts"}}, "pre_tokenizer: type 'UnicodeScripts'"},
      {"/pre_tokenizer", nullptr, "decoder: ByteLevel without a pre-tokenizer ByteLevel"},
      {"/pre_tokenizer",
       {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}},
       "pre_tokenizer: prepend_scheme 'last' is not supported; supported: always, first, never"},
      {"/pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}},
       "pre_tokenizer.pretokenizers[1]: a part after ByteLevel"},
      {"/pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", {{"Regex", "\\h"}}}, {"behavior", "Isolated"}}}}},
       "pre_tokenizer.pretokenizers[0].pattern: regex: \\h at offset 0"},
      {"/pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers", {{{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "X"}}}}},
       "pre_tokenizer.pretokenizers[0]: behavior 'X'"},
      {"/pre_tokenizer/new_flag", true, "pre_tokenizer: field 'new_flag'"},
      {"/post_processor",
       {{"type", "RobertaProcessing"}},
       "post_processor: type 'RobertaProcessing'"},
      {"/decoder", {{"type", "WordPiece"}}, "decoder: type 'WordPiece'"},
      {"/decoder", {{"type", "Fuse"}}, "decoder: another than ByteLevel with such a pre-tokenizer"},
      {"/decoder", nullptr, "decoder: none is not supported; supported: ByteLevel alone, or"},
      {"/decoder",
       {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, {{"type", "ByteFallback"}}}}},
       "decoder.decoders[1]: a decoder ByteFallback here"},
      {"/decoder",
       {{"type", "Sequence"}, {"decoders", {{{"type", "ByteLevel"}}, {{"type", "Fuse"}}}}},
       "decoder.decoders[1]: a decoder Fuse here"},
      {"/decoder",
       {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}},
       "decoder: a decoder Strip here"},
      {"/decoder",
       {{"type", "Sequence"},
        {"decoders",
         {{{"type", "Fuse"}}, {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 1}}}}},
       "decoder.decoders[1]: this is not supported; supported: content of one character"},
      {"/decoder",
       {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "bb"}},
       "decoder: content 'bb' for 'a' is not supported"},
      {"/model/type", "WordPiece",
       "model: type 'WordPiece' is not supported; supported: BPE, Unigram"},
      {"/model/dropout", 0.1, "model: dropout"},
      {"/model/continuing_subword_prefix", "##", "model: continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "</w>", "model: end_of_word_suffix"},
      {"/model/new_flag", 1, "model: field 'new_flag'"},
      {"/version", "2.0", "version: '2.0'"},
      {"/surprise", 1, "tokenizer.json: field 'surprise'"},
      {"/added_tokens/0/new_flag", 1, "added_tokens[0]: field 'new_flag'"},
  };
  for (const Case& c : cases) {
    json file = Small();
    file[json::json_pointer(c.pointer)] = c.value;
    const absl::Status status = Refusal(file);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << c.pointer << " " << status;
    EXPECT_NE(std::string(status.message()).find(c.message), std::string::npos)
        << c.message << " / " << status;
  }
  json file = Small();
  file["model"]["vocab"].erase("!");
  file["model"]["byte_fallback"] = true;
  EXPECT_NE(std::string(Refusal(file).message()).find("model: byte_fallback"), std::string::npos);
}

TEST(TokenizerJsonTest, WhatIsMalformedIsNamed) {
  struct Case {
    const char* pointer;
    json value;
    const char* message;
  };
  const Case cases[] = {
      {"/model/vocab/a", 1.5, "the id of 'a' is no integer"},
      {"/model/vocab/a", -1, "the id of 'a' is out of range"},
      {"/model/vocab/a", 4'000'000'000, "the id of 'a' is out of range"},
      {"/model/vocab/a", 18446744073709551615u, "the id of 'a' is out of range"},
      {"/model/vocab/a", json::object(), "the id of 'a' is no integer"},
      {"/model/vocab/a", int{'b'}, "id 98 is both"},
      {"/model/vocab", 1, "model.vocab"},
      {"/model/type", "Unigram", "model.vocab: no array of texts and scores"},
      {"/model/vocab", nullptr, "model.vocab"},
      {"/model/merges", "a b", "model.merges"},
      {"/model/merges/0", "a b c", "merge 'a b c' does not have two parts"},
      {"/model/merges/0", "ab", "merge 'ab' does not have two parts"},
      {"/model/merges/0", {"a"}, "a merge without exactly two parts"},
      {"/model/merges/0", {"a", "b", "c"}, "a merge of more than two parts"},
      {"/model/merges/0", {"a", 1}, "a merge that is neither text nor a pair"},
      {"/model/merges/0", 1, "a merge that is neither text nor a pair"},
      {"/model/merges/0", {"a", json::array({"b"})}, "a merge that is neither text nor a pair"},
      {"/model/merges/0", "a zz", "merge 0 of 'a' and 'zz'"},
      {"/model/ignore_merges", 1, "ignore_merges is neither true nor false"},
      {"/model", nullptr, "model: there is none"},
      {"/added_tokens", 1, "added_tokens: no array"},
      {"/added_tokens/0", 1, "added_tokens[0]: not an object"},
      {"/added_tokens/0/id", "x", "added_tokens[0].id: no token id"},
      {"/added_tokens/0/id", 1 << 30, "is out of range"},
      {"/added_tokens/0/content", std::string(600, 'x'), "has 600 bytes; allowed: 1 to 512"},
      {"/added_tokens/0/special", "yes", "special is neither true nor false"},
      {"/normalizer", 1, "normalizer: type ''"},
      {"/normalizer",
       {{"type", "Prepend"}, {"prepend", std::string(65, 'x')}},
       "normalizer: prepend has 65 bytes; allowed: 64"},
      {"/pre_tokenizer",
       {{"type", "Metaspace"}, {"replacement", "__"}},
       "pre_tokenizer: replacement '__' is not one character"},
      {"/pre_tokenizer/use_regex", 1, "use_regex is neither true nor false"},
      {"/post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", "<q>"}}}}}},
        {"special_tokens", json::object()}},
       "'<q>' is not described"},
      {"/post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", "q"}}}}, {{"Sequence", {{"id", "A"}}}}}},
        {"special_tokens", {{"q", {{"ids", {999}}}}}}},
       "the post-processor adds id 999, which is no token"},
  };
  for (const Case& c : cases) {
    json file = Small();
    file[json::json_pointer(c.pointer)] = c.value;
    const absl::Status status = Refusal(file);
    EXPECT_FALSE(status.ok()) << c.pointer << " " << c.message;
    EXPECT_NE(std::string(status.message()).find(c.message), std::string::npos)
        << c.message << " / " << status;
  }
}

TEST(TokenizerJsonTest, HostileTextIsAnErrorOnOneLine) {
  const std::string deep(100000, '[');
  const std::string texts[] = {"",
                               "null",
                               "[]",
                               "{",
                               "{}",
                               "\xff\xfe",
                               "{\"model\": " + deep,
                               "{\"a\":1,\"a\":2}",
                               "{\"model\":{\"vocab\":{\"a\":1,\"a\":2}}}",
                               "{\"model\":{\"vocab\":{\"a\xff\":1}}}",
                               "{\"model\":{\"vocab\":{\"\\ud800\":1}}}",
                               "{\"model\":[{\"vocab\":{\"a\":{}}}]}",
                               "{\"vocab\":{\"a\":{}},\"merges\":[1]}",
                               "{\"a\n\":1}",
                               "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}"};
  for (const std::string& text : texts) {
    const absl::Status status = TokenizerFromJson(text).status();
    EXPECT_FALSE(status.ok()) << text.substr(0, 60);
    EXPECT_EQ(std::string(status.message()).find('\n'), std::string::npos) << status;
  }
}

TEST(TokenizerJsonTest, DamagedFilesDoNotCrash) {
  std::mt19937 random(6);
  const std::string whole = Small().dump();
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = whole;
    for (int n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 40);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 40));
      }
    }
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(text);
    if (!tokenizer.ok()) continue;
    ++accepted;
    EXPECT_TRUE((*tokenizer)->Encode("ab <s> \n 12", {.parse_special_tokens = true}).ok());
  }
  EXPECT_LT(accepted, 3000);
}

TEST(TokenizerTest, TextMustBeUtf8) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(Small().dump());
  ASSERT_TRUE(tokenizer.ok());
  const absl::Status status = (*tokenizer)->Encode("ab\xC3(", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "text is not valid UTF-8 at byte 2 of 4");
  EXPECT_FALSE((*tokenizer)->EncodeChat({"ab", {true}}).ok());
}

TEST(TokenizerTest, ChatsCannotForgeControlTokens) {
  json file = Small();
  const auto added = [](int id, const char* content, bool special) {
    return json{{"id", id}, {"content", content}, {"special", special}};
  };
  file["added_tokens"] = {added(258, "<s>", true), added(259, "<t>", false), added(260, "ab", true),
                          added(261, "<e\u0301>", true)};
  // In their place, so that added tokens keep their ids.
  file["model"]["vocab"].erase("ab");
  file["model"]["vocab"].erase("abc");
  file["model"]["vocab"]["xy"] = 256;
  file["model"]["vocab"]["xyz"] = 257;
  file["model"]["merges"] = json::array();
  file["normalizer"] = {{"type", "NFC"}};
  file["added_tokens"][3]["normalized"] = true;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerFromJson(file.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // '^' in the mask: from the template.
  const auto ids = [&](const std::string& text, const std::string& mask) {
    ProvenText chat{text, {}};
    for (char c : mask) chat.trusted.push_back(c == '^');
    absl::StatusOr<std::vector<int32_t>> result = (*tokenizer)->EncodeChat(chat);
    EXPECT_TRUE(result.ok()) << result.status();
    return *result;
  };
  using V = std::vector<int32_t>;
  EXPECT_EQ(ids("<s><s>", "^^^   "), (V{258, '<', 's', '>'}));
  EXPECT_EQ(ids("<s>", "^^ "), (V{'<', 's', '>'}));
  EXPECT_EQ(ids("<s>", " ^^"), (V{'<', 's', '>'}));
  EXPECT_EQ(ids("<t>", "   "), (V{259}));
  // A token that is not trusted hides none that is.
  EXPECT_EQ(ids("aab", " ^^"), (V{'a', 260}));
  EXPECT_EQ(ids("<<s>", " ^^^"), (V{'<', 258}));
  // Through the normaliser.
  EXPECT_EQ(ids("<e\u0301>", "^^^^^"), (V{261}));
  EXPECT_EQ(ids("<\u00e9>", "^^^^"), (V{261}));
  EXPECT_EQ(ids("<e\u0301>", "^^  ^"), (V{'<', 0xC3, 0xA9, '>'}));
}

}  // namespace
}  // namespace sirocco
