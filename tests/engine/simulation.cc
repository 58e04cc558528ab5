#include "tests/engine/simulation.h"

#include <algorithm>
#include <optional>

#include "tests/engine/fake_model.h"

namespace sirocco {
namespace {

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The stop string that ends first in text, beyond its first `seen` bytes: the longest.
struct Found {
  std::string stop;
  size_t end;
};
std::optional<Found> Find(const std::string& text, size_t seen,
                          const std::vector<std::string>& stops) {
  for (size_t end = seen + 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      if (stop.size() > longest.size() && EndsWith(text.substr(0, end), stop)) longest = stop;
    }
    if (!longest.empty()) return Found{longest, end};
  }
  return std::nullopt;
}

// Of the leads that the vocabulary and U+FFFD have; 0: no lead.
size_t CharacterSize(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead == 0xc3) return 2;
  if (lead == 0xe2 || lead == 0xef) return 3;
  return lead == 0xf0 ? 4 : 0;
}

Lane LaneOf(const Request& request, int32_t index, const std::vector<int32_t>& barred) {
  Lane lane = {};
  lane.seed = request.sampling.seed;
  lane.index = static_cast<uint32_t>(index);
  lane.min_length = static_cast<int32_t>(request.prompt.size()) + request.sampling.min_new_tokens;
  if (request.sampling.min_new_tokens > 0 && !barred.empty()) lane.flags |= kLaneBarred;
  if (request.logprobs) {
    lane.flags |= kLaneLogprobs;
    lane.top_logprobs = request.logprobs->top;
  }
  return lane;
}

}  // namespace

std::string NaiveText(const std::string& bytes, bool whole_only) {
  std::string text;
  for (size_t i = 0; i < bytes.size();) {
    const auto at = [&](size_t k) { return static_cast<uint8_t>(bytes[k]); };
    const size_t size = CharacterSize(at(i));
    size_t length = 1;
    while (length < size && i + length < bytes.size()) {
      const uint8_t low = at(i) == 0xf0 && length == 1 ? 0x90 : 0x80;
      if (at(i + length) < low || at(i + length) > 0xbf) break;
      ++length;
    }
    if (size > 0 && length == size) {
      text += bytes.substr(i, size);
    } else if (whole_only && size > 0 && i + length == bytes.size()) {
      return text;
    } else {
      text += "\xef\xbf\xbd";
    }
    i += length;
  }
  return text;
}

Answer Simulate(const Request& request, int32_t index, const std::vector<int32_t>& end_token_ids,
                const FakeTokenizer* tokenizer) {
  Answer answer;
  std::vector<int32_t> barred = end_token_ids;
  barred.insert(barred.end(), request.stop.token_ids.begin(), request.stop.token_ids.end());
  const Lane lane = LaneOf(request, index, barred);
  std::vector<int32_t> tokens = request.prompt;
  std::string bytes;  // of what is shown
  std::string text;   // of it, whole characters
  for (int32_t count = 1; count <= request.max_new_tokens; ++count) {
    const TokenScore score = FakeNext(lane, barred, tokens);
    const int32_t id = score.token_id;
    tokens.push_back(id);
    answer.token_ids.push_back(id);
    if (request.logprobs) answer.cumulative_logprob += score.logprob;
    const bool may_end = count > request.sampling.min_new_tokens;
    const bool stop = may_end && Contains(request.stop.token_ids, id);
    const bool end = may_end && !request.stop.ignore_eos && Contains(end_token_ids, id);
    const bool last = stop || end || count == request.max_new_tokens;
    const bool shown = (!stop && !end) || (stop && request.stop.include_stop_in_output);
    const size_t seen = text.size();
    if (tokenizer != nullptr && shown && !tokenizer->IsSpecial(id)) {
      bytes += tokenizer->TokenBytes(id);
    }
    text = NaiveText(bytes, /*whole_only=*/!last);
    answer.text = text;
    if (may_end && !stop && !end) {
      if (const auto found = Find(text, seen, request.stop.strings); found) {
        const size_t kept =
            request.stop.include_stop_in_output ? found->end : found->end - found->stop.size();
        answer.text = text.substr(0, kept);
        answer.finish_reason = FinishReason::kStop;
        answer.stop_reason = found->stop;
        return answer;
      }
    }
    if (last) {
      answer.finish_reason = stop || end ? FinishReason::kStop : FinishReason::kLength;
      if (stop) answer.stop_reason = std::to_string(id);
      return answer;
    }
  }
  answer.finish_reason = FinishReason::kLength;
  return answer;
}

}  // namespace sirocco
