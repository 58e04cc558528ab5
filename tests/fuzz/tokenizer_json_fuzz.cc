// A tokenizer.json or, where it does not begin as an object, a tokenizer.model; and behind the last
// NUL a text that it cuts.
#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/tokenizer_model.h"
#include "engine/tokenizer/utf8.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sirocco;
  const auto [file, text] = SplitAtNul(AsText(data, size));
  const bool is_json = !file.empty() && file[0] == '{';
  auto parts = is_json ? ParseTokenizerJson(file) : ParseTokenizerModel(file);
  if (!parts.ok()) {
    RequireOneLine(parts.status());
    return 0;
  }
  const auto tokenizer = MakeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) {
    RequireOneLine(tokenizer.status());
    return 0;
  }
  const bool valid = FindInvalidUtf8(text) == text.size();
  for (const bool special : {false, true}) {
    const auto ids =
        (*tokenizer)
            ->Encode(text, {.add_special_tokens = special, .parse_special_tokens = special});
    Require(valid || !ids.ok(), "invalid text is refused");
    if (!ids.ok()) continue;
    Detokenizer detokenizer(**tokenizer, special, /*continues=*/false);
    std::string joined;
    for (const int32_t id : *ids) {
      Require(id >= 0 && id < (*tokenizer)->vocab_size(), "ids are in range");
      joined += detokenizer.Append(id);
    }
    joined += detokenizer.Finish();
    Require(joined == (*tokenizer)->Decode(*ids, special), "pieces join to the whole");
    Require(FindInvalidUtf8(joined) == joined.size(), "output is UTF-8");
  }
  if (!valid) return 0;
  const ProvenText chat = {std::string(text), std::vector<bool>(text.size(), size % 2 == 0)};
  const auto ids = (*tokenizer)->EncodeChat(chat);
  if (ids.ok()) (*tokenizer)->Decode(*ids, /*skip_special_tokens=*/true);
  return 0;
}
