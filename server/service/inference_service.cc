#include "server/service/inference_service.h"

#include <functional>
#include <memory>
#include <utility>

#include "server/api/methods.h"

namespace sirocco {
namespace {

// A call that is one function of its request and the model. Owns itself until OnDone.
class FunctionCall final : public grpc::ServerUnaryReactor {
 public:
  using Function =
      std::function<absl::StatusOr<grpc::ByteBuffer>(const grpc::ByteBuffer&, const ModelFacts&)>;

  FunctionCall(RpcMethod method, const CallContext& shared, grpc::CallbackServerContext& context,
               grpc::ByteBuffer request, grpc::ByteBuffer* response, Function function)
      : shared_(shared),
        open_(shared.open),
        context_(context),
        record_(method, shared.mode, shared.metrics, context),
        request_(std::move(request)),
        response_(response),
        function_(std::move(function)) {
    if (!request_.Valid()) record_.HasNoMessage();
  }

  void RunOnPool() {
    const absl::Status size = CheckSize();
    if (!size.ok()) return End(size);
    const bool posted = shared_.pool.Post(request_.Length(), [this] { Run(); });
    if (!posted) End(Exhausted("too many requests wait to be tokenised"));
  }

  // Where the function takes no time.
  void RunHere() {
    const absl::Status size = CheckSize();
    if (!size.ok()) return End(size);
    Run();
  }

  void OnDone() override {
    record_.Done();
    delete this;
  }

 private:
  absl::Status CheckSize() { return record_.CheckSize(request_, shared_.max_message_size); }

  void Run() { End(context_.IsCancelled() ? absl::CancelledError("the client has gone") : Call()); }

  absl::Status Call() {
    const auto model = shared_.state.Model();
    if (!model.ok()) return model.status();
    details_.model = model->facts->name;
    auto response = function_(request_, *model->facts);
    if (!response.ok()) return response.status();
    *response_ = *std::move(response);
    return absl::OkStatus();
  }

  void End(const absl::Status& status) { Finish(record_.End(status, details_)); }

  const CallContext shared_;
  const OpenCalls::Call open_;
  grpc::CallbackServerContext& context_;
  CallRecord record_;
  CallDetails details_;
  const grpc::ByteBuffer request_;
  grpc::ByteBuffer* const response_;
  const Function function_;
};

// `Call` over messages as a function over their bytes.
template <typename RequestMessage, typename Call>
FunctionCall::Function OverMessages(Call call) {
  return [call](const grpc::ByteBuffer& bytes,
                const ModelFacts& model) -> absl::StatusOr<grpc::ByteBuffer> {
    RequestMessage request;
    if (absl::Status status = FromByteBuffer(bytes, request); !status.ok()) return status;
    const auto response = call(request, model);
    if (!response.ok()) return response.status();
    return ToByteBuffer(*response);
  };
}

}  // namespace

grpc::ServerUnaryReactor* InferenceService::Generate(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  const auto call = std::make_shared<UnaryGenerate>(shared_, *context, response);
  call->Start(*request);
  return call.get();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::GenerateStream(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  const auto call = std::make_shared<StreamGenerate>(shared_, *context);
  call->Start(*request);
  return call.get();
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  auto* call = new FunctionCall(RpcMethod::kTokenize, shared_, *context, *request, response,
                                OverMessages<v1::TokenizeRequest>(&sirocco::Tokenize));
  call->RunOnPool();
  return call;
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  auto* call = new FunctionCall(RpcMethod::kDetokenize, shared_, *context, *request, response,
                                OverMessages<v1::DetokenizeRequest>(&sirocco::Detokenize));
  call->RunOnPool();
  return call;
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  const auto get = [](const v1::GetModelRequest&,
                      const ModelFacts& model) -> absl::StatusOr<v1::Model> {
    return ToModel(model);
  };
  auto* call = new FunctionCall(RpcMethod::kGetModel, shared_, *context, *request, response,
                                OverMessages<v1::GetModelRequest>(get));
  call->RunHere();
  return call;
}

}  // namespace sirocco
