#include "engine/sequence.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "engine/beam_group.h"

namespace sirocco {
namespace {

std::vector<int32_t> Sorted(std::vector<int32_t> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

bool Contains(const std::vector<int32_t>& sorted, int32_t id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

// Only what a request asks for is flagged: the sampler passes by the rest.
uint32_t FlagsOf(const RequestContext& context) {
  const SamplingParams& sampling = context.request.sampling;
  uint32_t flags = 0;
  if (!sampling.logit_bias.empty() || !sampling.allowed_token_ids.empty() ||
      !sampling.banned_token_ids.empty()) {
    flags |= kLaneBias;
  }
  if (sampling.HasPenalties()) flags |= kLanePenalties;
  // A beam group leaves them out itself.
  if (sampling.min_new_tokens > 0 && !context.barred_ids.empty() && !context.searches()) {
    flags |= kLaneBarred;
  }
  if (sampling.no_repeat_ngram_size > 0) flags |= kLaneNgrams;
  // Without options a beam's candidates are the alternatives that logprobs report.
  if (context.searches() && flags != 0) return flags | kLaneBeam;
  if (context.request.logprobs || context.searches()) flags |= kLaneLogprobs;
  return flags;
}

// The most probable ids that a lane tells of.
int32_t TopOf(const RequestContext& context) {
  const int32_t asked = context.request.logprobs ? context.request.logprobs->top : 0;
  if (!context.searches()) return asked;
  return std::max(asked, BeamGroup::Candidates(context));
}

}  // namespace

std::shared_ptr<const RequestContext> MakeRequestContext(uint64_t number, Request request,
                                                         std::shared_ptr<TokenStream> stream,
                                                         const std::vector<int32_t>& end_token_ids,
                                                         const PrefixHasher* hasher) {
  auto context = std::make_shared<RequestContext>();
  context->number = number;
  context->request = std::move(request);
  context->came = Clock::now();
  context->stream = std::move(stream);
  const std::vector<int32_t> end_ids = Sorted(end_token_ids);
  context->stop_ids = Sorted(context->request.stop.token_ids);
  // min_new_tokens bars end tokens even where ignore_eos lets them pass later, as vLLM does.
  std::set_union(end_ids.begin(), end_ids.end(), context->stop_ids.begin(), context->stop_ids.end(),
                 std::back_inserter(context->barred_ids));
  if (!context->request.stop.ignore_eos) context->end_ids = end_ids;
  if (hasher != nullptr) {
    hasher->Append(context->request.prompt, context->request.cache_salt, &context->names);
  }
  return context;
}

TokenRole RequestContext::RoleOf(int32_t token_id, int32_t count) const {
  // A barred id comes only where nothing else was left; it does not end the sequence.
  const bool may_end = count > request.sampling.min_new_tokens;
  if (may_end && Contains(stop_ids, token_id)) return TokenRole::kStopToken;
  if (may_end && Contains(end_ids, token_id)) return TokenRole::kEndToken;
  return count == request.max_new_tokens ? TokenRole::kLast : TokenRole::kText;
}

Sequence::Sequence(std::shared_ptr<const RequestContext> context, int32_t index, int32_t lane,
                   BlockTable blocks, const PrefixHasher* hasher, ClientShare* share)
    : context_(std::move(context)),
      index_(index),
      lane_(lane),
      blocks_(std::move(blocks)),
      hasher_(hasher),
      share_(share),
      known_at_start_(context_->prompt_length()) {
  // A decode step adds to both and allocates nothing.
  const Request& request = context_->request;
  const size_t most = request.prompt.size() + request.max_new_tokens;
  tokens_.reserve(most);
  tokens_.assign(request.prompt.begin(), request.prompt.end());
  if (hasher == nullptr) return;
  names_.reserve(most / hasher->block_size());
  names_.assign(context_->names.begin(), context_->names.end());
}

std::span<const BlockHash> Sequence::SharableNames() const {
  if (!may_share()) return {};
  return FilledNames(static_cast<int32_t>(tokens_.size()) - 1);
}

std::span<const BlockHash> Sequence::FilledNames(int32_t computed) const {
  if (hasher_ == nullptr) return {};
  return std::span(names_).first(computed / hasher_->block_size());
}

LaneStart Sequence::Start() const {
  const Request& request = context_->request;
  const SamplingParams& sampling = request.sampling;
  LaneStart start;
  start.lane = lane_;
  start.state = {.length = static_cast<int32_t>(tokens_.size()),
                 .min_length = context_->prompt_length() + sampling.min_new_tokens,
                 .flags = FlagsOf(*context_),
                 .temperature = sampling.temperature,
                 .top_k = sampling.top_k,
                 .top_p = sampling.top_p,
                 .min_p = sampling.min_p,
                 .repetition_penalty = sampling.repetition_penalty,
                 .presence_penalty = sampling.presence_penalty,
                 .frequency_penalty = sampling.frequency_penalty,
                 .no_repeat_ngram = sampling.no_repeat_ngram_size,
                 .top_logprobs = TopOf(*context_),
                 .seed = sampling.seed,
                 .index = static_cast<uint32_t>(index_)};
  start.tokens = tokens_;
  start.prompt_length = context_->prompt_length();
  start.logit_bias = sampling.logit_bias;
  start.allowed_ids = sampling.allowed_token_ids;
  start.banned_ids = sampling.banned_token_ids;
  start.barred_ids = context_->barred_ids;
  return start;
}

PrefillChunk Sequence::NextChunk(int32_t budget) const {
  const int32_t left = known_at_start_ - prefilled_;
  PrefillChunk chunk;
  chunk.lane = lane_;
  chunk.first_position = prefilled_;
  chunk.count = std::min(left, budget);
  chunk.sample = chunk.count == left && !context_->only_scores();
  // The prompt is scored once, by the first sequence; what follows its last token is not known.
  const int32_t last = context_->prompt_length() - 1;
  if (!context_->scores_prompt() || index_ > 0 || prefilled_ >= last) return chunk;
  if (prefilled_ < scored_) {
    // Scored before it was preempted: a chunk is scored from its first position on, or not at all.
    chunk.count = std::min(chunk.count, scored_ - prefilled_);
    chunk.sample = false;
  } else {
    chunk.score_count = std::min(chunk.count, last - prefilled_);
    chunk.score_top = context_->request.logprobs->top;
  }
  return chunk;
}

void Sequence::ChunkLaunched(const PrefillChunk& chunk) {
  prefilled_ += chunk.count;
  sampled_ += chunk.sample ? 1 : 0;
  waits_for_group_ = chunk.sample && group_ != nullptr;
  ++steps_in_flight_;
}

void Sequence::DecodeLaunched() {
  ++sampled_;
  waits_for_group_ = group_ != nullptr;
  ++steps_in_flight_;
}

void Sequence::Join(std::shared_ptr<BeamGroup> group) {
  group_ = std::move(group);
  idle_ = waits_for_group_ = index_ > 0;
}

void Sequence::GoOnFrom(const Sequence& parent) {
  waits_for_group_ = idle_ = false;
  if (&parent == this) return;
  // In the room that both have for all tokens of the request.
  tokens_.assign(parent.tokens_.begin(), parent.tokens_.end());
  names_.assign(parent.names_.begin(), parent.names_.end());
  known_at_start_ = parent.known_at_start_;
  cached_ = parent.cached_;
  prefilled_ = parent.prefilled_;
  sampled_ = parent.sampled_;
  generated_ = parent.generated_;
  begun_ = true;  // its prompt is the parent's
}

void Sequence::GoOnWith(int32_t token_id) { Know(token_id); }

bool Sequence::ComesBefore(const Sequence& other) const {
  const auto place = [](const Sequence& sequence) {
    const RequestContext& context = *sequence.context_;
    return std::tuple(-int64_t{context.request.priority}, context.number, sequence.index_);
  };
  return place(*this) < place(other);
}

void Sequence::Rewind() {
  known_at_start_ = static_cast<int32_t>(tokens_.size());
  cached_ = prefilled_ = 0;
  sampled_ = generated_;
  waits_for_group_ = idle_;
  ++preemptions_;
}

void Sequence::Resume(int32_t lane, BlockTable blocks) {
  lane_ = lane;
  blocks_ = std::move(blocks);
  preempted_ = false;
}

void Sequence::Cancel(Clock::time_point since) {
  ended_ = true;
  cancelled_ = since;
}

void Sequence::Know(int32_t token_id) {
  ++generated_;
  tokens_.push_back(token_id);
  if (hasher_ != nullptr) hasher_->Append(tokens_, context_->request.cache_salt, &names_);
}

TokenRole Sequence::Append(int32_t token_id) {
  Know(token_id);
  const TokenRole role = context_->RoleOf(token_id, generated_);
  ended_ = role != TokenRole::kText;
  return role;
}

}  // namespace sirocco
