#include "server/bench/load/grpc_target.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/bench/load/draws.h"

namespace sirocco {
namespace {

constexpr std::chrono::seconds kConnectTimeout(30);

std::chrono::system_clock::time_point After(double seconds) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(
             std::chrono::duration<double>(seconds));
}

absl::Status StatusOf(const std::string& address, const grpc::Status& status) {
  const std::string hint =
      status.error_code() == grpc::StatusCode::UNAVAILABLE ? "; is a server ready there?" : "";
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(address, ": ", status.error_message(), hint));
}

// One call; its callbacks are gRPC's, one at a time. Deletes itself at its
// end.
class StreamCall final : public grpc::ClientReadReactor<v1::GenerateEvent> {
 public:
  StreamCall(const std::string& address, v1::GenerateRequest message, const LoadRequest& request,
             LoadClock& clock, AnswerListener& listener)
      : address_(address), message_(std::move(message)), clock_(clock), listener_(listener) {
    answer_.request = request;
    answer_.tokens.reserve(static_cast<size_t>(request.output_length));
  }
  grpc::ClientContext& context() { return context_; }

  void Start(v1::Inference::Stub& stub) {
    stub.async()->GenerateStream(&context_, &message_, this);
    StartRead(&event_);
    answer_.sent = clock_.Now();
    StartCall();
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    const double now = clock_.Now();
    const auto count = static_cast<uint32_t>(event_.token_ids_size());
    ++answer_.events;
    if (count > 0) {
      answer_.tokens.push_back({now, count});
      tokens_ += static_cast<int32_t>(count);
      listener_.OnTokens(count);
    }
    StartRead(&event_);
  }
  void OnDone(const grpc::Status& status) override {
    answer_.ended = clock_.Now();
    if (!status.ok()) {
      answer_.status = StatusOf(address_, status);
    } else if (tokens_ != answer_.request.output_length) {
      answer_.status = absl::InternalError(
          absl::StrCat(address_, ": a stream brought ", tokens_, " tokens where ",
                       answer_.request.output_length, " were asked"));
    }
    // Nothing of the call is left when the listener may return to whoever owns the connections.
    const Answer answer = std::move(answer_);
    AnswerListener& listener = listener_;
    delete this;
    listener.OnEnd(answer);
  }

  const std::string& address_;
  const v1::GenerateRequest message_;
  LoadClock& clock_;
  AnswerListener& listener_;
  grpc::ClientContext context_;
  v1::GenerateEvent event_;
  int32_t tokens_ = 0;
  Answer answer_;
};

}  // namespace

GrpcTarget::GrpcTarget(const Options& options, ClientChannel channel, LoadClock& clock)
    : options_(options), channel_(std::move(channel)), clock_(clock) {
  ForgetPrompts();
}

absl::StatusOr<std::unique_ptr<GrpcTarget>> GrpcTarget::Connect(const Options& options,
                                                                LoadClock& clock) {
  absl::StatusOr<ClientChannel> channel = ClientChannel::Open(options.server);
  if (!channel.ok()) return channel.status();
  std::unique_ptr<GrpcTarget> target(new GrpcTarget(options, *std::move(channel), clock));
  if (absl::Status status = target->ConnectAll(); !status.ok()) return status;
  return target;
}

absl::Status GrpcTarget::ConnectAll() {
  const std::string& address = options_.server.address;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int32_t i = 0; i < options_.connections; ++i) {
    // A connection of its own, which channels of one target otherwise share.
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    channels.push_back(channel_.Connect(arguments));
    stubs_.push_back(v1::Inference::NewStub(channels.back()));
    if (i > 0) channels.back()->GetState(/*try_to_connect=*/true);
    if (i > 0) continue;
    // The first says whether there is a server at all, and that at once.
    grpc::ClientContext context;
    channel_.Authorize(context);
    const grpc::Status status = stubs_[0]->GetModel(&context, v1::GetModelRequest(), &model_);
    if (!status.ok()) return absl::UnavailableError(StatusOf(address, status).message());
  }
  const auto deadline = std::chrono::system_clock::now() + kConnectTimeout;
  for (size_t i = 0; i < channels.size(); ++i) {
    if (channels[i]->WaitForConnected(deadline)) continue;
    return absl::UnavailableError(absl::StrCat(
        address, ": connection ", i + 1, " of ", channels.size(), " did not come in ",
        kConnectTimeout.count(), " s; each takes an open file here and there (ulimit -n)"));
  }
  return absl::OkStatus();
}

void GrpcTarget::ForgetPrompts() {
  std::random_device random;
  salt_ = absl::StrCat("bench ", random(), random());
}

void GrpcTarget::Send(const LoadRequest& request, AnswerListener& listener) {
  auto* call = new StreamCall(options_.server.address, Make(request), request, clock_, listener);
  channel_.Authorize(call->context());
  if (options_.timeout > 0) {
    call->context().set_deadline(After(request.intended + options_.timeout - clock_.Now()));
  }
  call->Start(*stubs_[request.index % stubs_.size()]);
}

v1::GenerateRequest GrpcTarget::Make(const LoadRequest& request) const {
  v1::GenerateRequest out;
  Draws draws(options_.seed, Draws::kPrompt, request.index);
  auto& ids = *out.mutable_prompt_token_ids()->mutable_ids();
  ids.Reserve(request.prompt_length);
  for (int32_t i = 0; i < request.prompt_length; ++i) ids.Add(draws.Below(model_.vocab_size()));
  out.set_cache_salt(salt_);
  out.set_max_new_tokens(static_cast<uint32_t>(request.output_length));
  out.mutable_sampling()->set_temperature(0);
  out.mutable_stop()->set_ignore_eos(true);
  return out;
}

}  // namespace sirocco
