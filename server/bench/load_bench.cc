#include "server/bench/load_bench.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sirocco/v1/inference.grpc.pb.h"

namespace sirocco {
namespace {

using Clock = std::chrono::steady_clock;
using Stub = v1::Inference::Stub;

constexpr int32_t kWarmingTokens = 8;

double Between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

absl::Status StatusOf(const std::string& address, const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string hint =
      status.error_code() == grpc::StatusCode::UNAVAILABLE ? "; is a server ready there?" : "";
  return absl::UnavailableError(absl::StrCat(address, ": ", status.error_message(), hint));
}

// What one stream brought.
struct Stream {
  Clock::time_point begin, first, last;  // request, first token, last token
  uint64_t events = 0;
  uint32_t tokens = 0;
  std::vector<float> between;  // [tokens - 1], seconds
};

// One call; its callbacks are gRPC's, one at a time. Tells its end to `done`, which may delete it.
class StreamCall final : public grpc::ClientReadReactor<v1::GenerateEvent> {
 public:
  using Done = std::function<void(StreamCall*, const grpc::Status&)>;

  StreamCall(Stub& stub, const ClientChannel& channel, v1::GenerateRequest request, Done done)
      : request_(std::move(request)), done_(std::move(done)) {
    stream_.between.reserve(request_.max_new_tokens());
    channel.Authorize(context_);
    stream_.begin = Clock::now();
    stub.async()->GenerateStream(&context_, &request_, this);
  }
  void Start() {
    StartRead(&event_);
    StartCall();
  }
  const Stream& stream() const { return stream_; }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    Note(Clock::now());
    StartRead(&event_);
  }
  void OnDone(const grpc::Status& status) override {
    const Done done = std::move(done_);  // outlives this
    done(this, status);
  }

  void Note(Clock::time_point now) {
    const int count = event_.token_ids_size();
    ++stream_.events;
    if (count == 0) return;
    if (stream_.tokens == 0) {
      stream_.first = now;
      // What comes with the first token was not waited for.
      stream_.between.insert(stream_.between.end(), count - 1, 0.0f);
    } else {
      const float each = static_cast<float>(Between(stream_.last, now) / count);
      stream_.between.insert(stream_.between.end(), count, each);
    }
    stream_.last = now;
    stream_.tokens += static_cast<uint32_t>(count);
  }

  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateEvent event_;
  Stream stream_;
  Done done_;
};

// A closed loop, to its end.
class Loop {
 public:
  Loop(const LoadOptions& options, const ClientChannel& channel,
       std::vector<std::unique_ptr<Stub>>& stubs, int32_t vocab_size, int32_t requests,
       int32_t output_length, const LoadBenchProgress& progress)
      : options_(options),
        channel_(channel),
        stubs_(stubs),
        requests_(requests),
        output_length_(output_length),
        progress_(progress),
        salt_(absl::StrCat("bench ", std::random_device()(), std::random_device()())),
        random_(options.seed),
        ids_(0, vocab_size - 1) {}

  absl::StatusOr<std::vector<Stream>> Run(int32_t concurrency) {
    for (int32_t i = 0; i < concurrency; ++i) StartNext();
    std::unique_lock lock(mutex_);
    int32_t shown = 0;
    while (under_way_ > 0) {
      ended_.wait_for(lock, std::chrono::milliseconds(100));
      if (const int32_t done = static_cast<int32_t>(streams_.size()); progress_ && done != shown) {
        shown = done;
        progress_(absl::StrCat("batch ", concurrency), done, requests_);
      }
    }
    if (!error_.ok()) return error_;
    return std::move(streams_);
  }

 private:
  // Also from gRPC's threads.
  void StartNext() {
    StreamCall* call = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (started_ == requests_ || !error_.ok()) return;
      Stub& stub = *stubs_[started_ % stubs_.size()];
      ++started_;
      ++under_way_;
      call =
          new StreamCall(stub, channel_, NextRequest(),
                         [this](StreamCall* ended, const auto& status) { Ended(ended, status); });
    }
    call->Start();
  }

  v1::GenerateRequest NextRequest() {
    v1::GenerateRequest request;
    for (int32_t i = 0; i < options_.prompt_length; ++i) {
      request.mutable_prompt_token_ids()->add_ids(ids_(random_));
    }
    // The same seed gives every loop the same prompts: none may find another's in the cache.
    request.set_cache_salt(salt_);
    request.set_max_new_tokens(output_length_);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }

  void Ended(StreamCall* call, const grpc::Status& status) {
    const std::unique_ptr<StreamCall> owned(call);
    {
      const std::lock_guard lock(mutex_);
      const uint32_t tokens = call->stream().tokens;
      absl::Status error = StatusOf(options_.server.address, status);
      if (error.ok() && tokens != static_cast<uint32_t>(output_length_)) {
        error =
            absl::InternalError(absl::StrCat(options_.server.address, ": a stream brought ", tokens,
                                             " tokens where ", output_length_, " were asked"));
      }
      if (error_.ok()) error_ = error;
      streams_.push_back(call->stream());
    }
    StartNext();  // before this one no longer counts as under way
    const std::lock_guard lock(mutex_);
    --under_way_;
    ended_.notify_one();
  }

  const LoadOptions& options_;
  const ClientChannel& channel_;
  std::vector<std::unique_ptr<Stub>>& stubs_;
  const int32_t requests_;
  const int32_t output_length_;
  const LoadBenchProgress& progress_;
  const std::string salt_;

  std::mutex mutex_;
  std::condition_variable ended_;
  std::mt19937_64 random_;
  std::uniform_int_distribution<int32_t> ids_;
  int32_t started_ = 0;
  int32_t under_way_ = 0;
  std::vector<Stream> streams_;
  absl::Status error_;
};

Percentiles PercentilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double part) {
    return values[std::min(values.size() - 1, static_cast<size_t>(part * values.size()))];
  };
  return {at(0.5), at(0.9), at(0.99)};
}

LoadLevel LevelOf(int32_t concurrency, const std::vector<Stream>& streams) {
  LoadLevel level;
  level.concurrency = concurrency;
  level.requests = static_cast<int32_t>(streams.size());
  Clock::time_point begin = Clock::time_point::max();
  Clock::time_point end = Clock::time_point::min();
  std::vector<double> first, between, per_token;
  for (const Stream& stream : streams) {
    begin = std::min(begin, stream.begin);
    end = std::max(end, stream.last);
    level.events += stream.events;
    level.tokens += stream.tokens;
    first.push_back(Between(stream.begin, stream.first));
    between.insert(between.end(), stream.between.begin(), stream.between.end());
    per_token.push_back(Between(stream.first, stream.last) / (stream.tokens - 1));
  }
  level.seconds = Between(begin, end);
  level.first_token = PercentilesOf(std::move(first));
  level.between_tokens = PercentilesOf(std::move(between));
  level.per_token = PercentilesOf(std::move(per_token));
  return level;
}

// Each a connection of its own, which channels of one target otherwise share.
std::vector<std::unique_ptr<Stub>> ConnectAll(const ClientChannel& channel, int32_t connections) {
  std::vector<std::unique_ptr<Stub>> stubs;
  for (int32_t i = 0; i < connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    stubs.push_back(v1::Inference::NewStub(channel.Connect(arguments)));
  }
  return stubs;
}

}  // namespace

absl::StatusOr<LoadReport> BenchLoad(const LoadOptions& options,
                                     const LoadBenchProgress& progress) {
  const absl::StatusOr<ClientChannel> channel = ClientChannel::Open(options.server);
  if (!channel.ok()) return channel.status();
  std::vector<std::unique_ptr<Stub>> stubs = ConnectAll(*channel, options.connections);
  v1::Model model;
  {
    grpc::ClientContext context;
    channel->Authorize(context);
    const grpc::Status status = stubs[0]->GetModel(&context, v1::GetModelRequest(), &model);
    if (!status.ok()) return StatusOf(options.server.address, status);
  }
  if (int64_t{options.prompt_length} + options.output_length > model.max_length()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--prompt-length and --output-length are ", options.prompt_length + options.output_length,
        " tokens together; this server takes ", model.max_length()));
  }
  LoadReport report;
  report.options = options;
  report.address = options.server.address;
  report.model = model.name();
  report.backend = model.backend();
  report.device = model.device();
  report.mode = model.mode();
  report.dtype = model.dtype();
  const int32_t vocab_size = static_cast<int32_t>(model.vocab_size());
  for (const int32_t concurrency : options.concurrency) {
    // Connections, and what the server does for the first time.
    const LoadBenchProgress quiet;
    absl::StatusOr<std::vector<Stream>> streams =
        Loop(options, *channel, stubs, vocab_size, concurrency,
             std::min(options.output_length, kWarmingTokens), quiet)
            .Run(concurrency);
    if (!streams.ok()) return streams.status();
    const int32_t requests = options.requests > 0 ? options.requests : 4 * concurrency;
    streams = Loop(options, *channel, stubs, vocab_size, requests, options.output_length, progress)
                  .Run(concurrency);
    if (!streams.ok()) return streams.status();
    report.levels.push_back(LevelOf(concurrency, *streams));
  }
  return report;
}

}  // namespace sirocco
