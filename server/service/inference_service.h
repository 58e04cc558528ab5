// sirocco.v1.Inference over gRPC's callback API.
//
// The methods are registered raw: gRPC's generated ones answer UNIMPLEMENTED to bytes that do not
// parse, the contract says INVALID_ARGUMENT.
#pragma once

#include <grpcpp/grpcpp.h>

#include "server/service/generate_call.h"
#include "sirocco/v1/inference.grpc.pb.h"

namespace sirocco {

using RawInference = v1::Inference::WithRawCallbackMethod_Generate<
    v1::Inference::WithRawCallbackMethod_GenerateStream<
        v1::Inference::WithRawCallbackMethod_Tokenize<
            v1::Inference::WithRawCallbackMethod_Detokenize<
                v1::Inference::WithRawCallbackMethod_GetModel<v1::Inference::Service>>>>>;

class InferenceService final : public RawInference {
 public:
  explicit InferenceService(const CallContext& shared) : shared_(shared) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateStream(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;

 private:
  const CallContext shared_;
};

}  // namespace sirocco
