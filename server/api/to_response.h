// What the engine puts out -> messages of the public API, streamed or whole.
//
// The joined events of a stream hold exactly what the unary response holds: both are made from the
// same updates by the same code.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/token_stream.h"
#include "engine/tokenizer/tokenizer.h"
#include "sirocco/v1/inference.pb.h"

namespace sirocco {

// No event is larger: below the 4 MiB that gRPC clients take unless told otherwise.
inline constexpr size_t kMaxEventBytes = 3u << 20;

// Makes a stream's events, in order. One thread at a time.
class EventMaker {
 public:
  // `tokenizer` may be null: `token` stays empty then. `n`: sequences of the request.
  EventMaker(std::string request_id, const Tokenizer* tokenizer, int32_t n)
      : request_id_(std::move(request_id)), tokenizer_(tokenizer), open_(n) {}

  // Appends the events of an update. One that would exceed kMaxEventBytes is split; the finish
  // reason is on an index's last part. The event that ends the last sequence is held back until
  // the update that is `done`, so that the stream's last event, which carries usage, timing and
  // seed, is also the last event of its index. An update that ended in an error adds no usage.
  void Add(StreamUpdate update, std::deque<v1::GenerateEvent>& events);

 private:
  void AddPromptLogprobs(const std::vector<TokenLogprob>& logprobs,
                         std::deque<v1::GenerateEvent>& events) const;
  void AddDelta(const OutputDelta& delta, std::deque<v1::GenerateEvent>& events);
  v1::GenerateEvent NewEvent(int32_t index) const;

  const std::string request_id_;
  const Tokenizer* const tokenizer_;
  int32_t open_;                           // sequences that go on
  std::optional<v1::GenerateEvent> held_;  // ends the last of them
};

// Makes the whole response.
class ResponseMaker {
 public:
  ResponseMaker(std::string request_id, const Tokenizer* tokenizer, int32_t n);
  void Add(StreamUpdate update);
  // After the update that is `done`; once.
  v1::GenerateResponse Take() { return std::move(response_); }

 private:
  const Tokenizer* const tokenizer_;
  v1::GenerateResponse response_;
};

}  // namespace sirocco
