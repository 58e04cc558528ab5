#include "tests/server/testing/fakes.h"

#include <algorithm>
#include <array>
#include <utility>

namespace sirocco {
namespace {

constexpr RequestTiming kTiming = {std::chrono::milliseconds(1), std::chrono::milliseconds(2),
                                   std::chrono::milliseconds(3)};

TokenLogprob Score(int32_t id, const LogprobOptions& options) {
  TokenLogprob out{id, -0.5f, 1, {}};
  for (int32_t i = 0; i < options.top; ++i) out.alternatives.emplace_back(id + i, -0.5f - i);
  return out;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> FakeTokenizer::Encode(std::string_view text,
                                                           const TokenizerOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids.push_back(kBos);
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

absl::StatusOr<std::vector<int32_t>> FakeTokenizer::EncodeChat(const ProvenText& chat) const {
  return Encode(chat.text, {.add_special_tokens = false});
}

std::string_view FakeTokenizer::TokenBytes(int32_t id) const {
  static const std::array<char, 256> kBytes = [] {
    std::array<char, 256> bytes;
    for (int i = 0; i < 256; ++i) bytes[i] = static_cast<char>(i);
    return bytes;
  }();
  static const std::string kLongToken(1 << 20, 'x');
  if (id >= 0 && id < 256) return {&kBytes[id], 1};
  if (id == kBos) return "<s>";
  if (id == kEos) return "</s>";
  return id == kLong ? std::string_view(kLongToken) : std::string_view();
}

ModelFacts FakeFacts(const Tokenizer* tokenizer) {
  ModelFacts facts;
  facts.name = "fake";
  facts.architecture = "llama";
  facts.max_length = 64;
  facts.max_batch_size = 4;
  facts.vocab_size = 259;
  facts.dtype = "float32";
  facts.backend = "cpu";
  facts.device = "a fake";
  facts.mode = Mode::kLayerGraph;
  facts.end_token_ids = {FakeTokenizer::kEos};
  facts.parameter_count = 12;
  facts.tokenizer = tokenizer;
  return facts;
}

FakeEngine::~FakeEngine() {
  stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<std::shared_ptr<TokenStream>> FakeEngine::Submit(Request request,
                                                                TokenStream::Listener listener) {
  if (!refusal.ok()) return refusal;
  auto stream = std::make_shared<TokenStream>(std::move(listener));
  const std::lock_guard lock(mutex_);
  requests_.push_back(request);
  threads_.emplace_back([this, request = std::move(request), stream] { Speak(request, *stream); });
  return stream;
}

void FakeEngine::Speak(const Request& request, TokenStream& stream) {
  StreamUpdate first;
  if (request.logprobs && request.logprobs->prompt) {
    for (size_t i = 0; i < request.prompt.size(); ++i) {
      first.prompt_logprobs.push_back(i == 0 ? TokenLogprob{}
                                             : Score(request.prompt[i], *request.logprobs));
    }
    stream.Put(std::move(first));
  }
  absl::Status status;
  for (int32_t i = 0; i < std::max(request.max_new_tokens, 1); ++i) {
    std::this_thread::sleep_for(step);
    if (stream.cancelled() || stopping_) {
      status = absl::Status(stopping_ ? absl::StatusCode::kUnavailable : stream.cancel_reason(),
                            "ended early");
      break;
    }
    StreamUpdate update;
    for (int32_t index = 0; index < request.n; ++index) {
      OutputDelta delta;
      delta.index = index;
      if (request.max_new_tokens > 0) {
        const int32_t id = 'a' + (i + index) % 26;
        delta.token_ids.push_back(id);
        delta.text = token_text.empty() ? std::string(1, static_cast<char>(id)) : token_text;
        if (request.logprobs) delta.logprobs.push_back(Score(id, *request.logprobs));
      }
      if (i + 1 >= request.max_new_tokens) {
        delta.finish_reason = FinishReason::kLength;
        if (request.logprobs) delta.cumulative_logprob = -0.5 * request.max_new_tokens;
      }
      update.deltas.push_back(std::move(delta));
    }
    stream.Put(std::move(update));
  }
  StreamUpdate last;
  last.done = true;
  last.status = status;
  last.usage = {static_cast<int32_t>(request.prompt.size()), 0, request.n * request.max_new_tokens};
  last.timing = kTiming;
  last.stage = RequestStage::kDecode;
  last.seed = request.sampling.seed;
  {
    const std::lock_guard lock(mutex_);
    ends_.push_back(status.code());
  }
  stream.Put(std::move(last));
}

bool FakeEngine::Drain(std::chrono::milliseconds) { return true; }

absl::Status FakeEngine::fault() const {
  const std::lock_guard lock(mutex_);
  return fault_;
}

void FakeEngine::SetFault(absl::Status fault) {
  const std::lock_guard lock(mutex_);
  fault_ = std::move(fault);
}

std::vector<Request> FakeEngine::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::vector<absl::StatusCode> FakeEngine::ends() const {
  const std::lock_guard lock(mutex_);
  return ends_;
}

bool FakeEngine::WaitForEnds(size_t count) const {
  return Eventually([&] { return ends().size() >= count; });
}

bool Eventually(const std::function<bool()>& condition) {
  const auto limit = Clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (Clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace sirocco
