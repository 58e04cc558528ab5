#include "tests/engine/beam_simulation.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/engine/fake_model.h"

namespace sirocco {
namespace {

struct Path {
  std::vector<int32_t> tokens;  // the prompt's too
  float score = 0;
  bool stop = false, end = false;  // by its last token
  double final_score = 0;
};

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// By the tokens that were generated so far.
std::vector<Path> Continuations(const Request& request, const std::vector<int32_t>& end_ids,
                                const Path& path, int32_t generated) {
  Lane lane = {};
  lane.flags = kLaneLogprobs;
  lane.top_logprobs = kMaxTopLogprobs;
  const TokenScore score = FakeNext(lane, {}, path.tokens);
  const bool barred = generated < request.sampling.min_new_tokens;
  std::vector<Path> paths;
  for (int32_t i = 0; i < score.top_count; ++i) {
    const int32_t id = score.top_ids[i];
    Path next = path;
    next.tokens.push_back(id);
    next.score += score.top_logprobs[i];
    next.stop = Contains(request.stop.token_ids, id);
    next.end = !next.stop && !request.stop.ignore_eos && Contains(end_ids, id);
    if (barred && (next.stop || Contains(end_ids, id))) continue;
    paths.push_back(next);
  }
  return paths;
}

Answer ToAnswer(const Request& request, const Path& path) {
  Answer answer;
  answer.token_ids.assign(path.tokens.begin() + request.prompt.size(), path.tokens.end());
  answer.finish_reason = path.stop || path.end ? FinishReason::kStop : FinishReason::kLength;
  if (path.stop) answer.stop_reason = std::to_string(path.tokens.back());
  if (request.logprobs) answer.cumulative_logprob = path.score;
  return answer;
}

}  // namespace

std::vector<Answer> SimulateBeams(const Request& request,
                                  const std::vector<int32_t>& end_token_ids) {
  const size_t width = request.beam->num_beams;
  std::vector<Path> beams = {{.tokens = request.prompt}};
  std::vector<Path> finished;
  const auto penalty = [&](int32_t length) {
    return std::pow(length, request.beam->length_penalty);
  };
  for (int32_t length = 1; length <= request.max_new_tokens; ++length) {
    std::vector<Path> all;
    for (const Path& beam : beams) {
      const std::vector<Path> more = Continuations(request, end_token_ids, beam, length - 1);
      all.insert(all.end(), more.begin(), more.end());
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Path& a, const Path& b) { return a.score > b.score; });
    beams.clear();
    for (size_t i = 0; i < all.size(); ++i) {
      const bool ends = all[i].stop || all[i].end;
      if (i < width && (ends || length == request.max_new_tokens)) {
        finished.push_back(all[i]);
        finished.back().final_score = all[i].score / penalty(length);
      }
      if (!ends && beams.size() < width) beams.push_back(all[i]);
    }
    std::stable_sort(finished.begin(), finished.end(),
                     [](const Path& a, const Path& b) { return a.final_score > b.final_score; });
    if (finished.size() > width) finished.resize(width);
    if (finished.size() < width) continue;
    if (request.beam->early_stopping) break;
    if (beams.front().score / penalty(length) <= finished.back().final_score) break;
  }
  std::vector<Answer> answers;
  for (int32_t i = 0; i < request.n; ++i) answers.push_back(ToAnswer(request, finished[i]));
  return answers;
}

}  // namespace sirocco
