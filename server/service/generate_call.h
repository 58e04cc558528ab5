// Generate and GenerateStream: one object a call, from its bytes to its status.
//
// A call's work is done by one thread at a time, its owner, and the ownership moves: from the
// worker pool (parsing, tokenising, Submit) to whichever thread brings news (the engine's delivery
// threads, gRPC's when a write has ended or the client has gone). Who brings news while another
// owns the call leaves a note and goes: nobody waits. While a write is in flight the call is
// owned by it, so what the engine puts out in the meantime is merged in the TokenStream.
//
// A call whose client has gone ends when the engine has let go of it: what it took is then known,
// for the metrics and the log.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "server/api/to_response.h"
#include "server/service/call.h"
#include "server/service/open_calls.h"
#include "server/service/serving_state.h"
#include "server/service/work_pool.h"

namespace sirocco {

class GenerateCalls;

// What calls share. Outlives them.
struct CallContext {
  ServingState& state;
  Metrics& metrics;
  WorkPool& pool;
  GenerateCalls& calls;
  OpenCalls& open;
  Mode mode;
  int32_t max_message_size;  // bytes
  bool log_prompts = false;
};

class GenerateCall : public std::enable_shared_from_this<GenerateCall> {
 public:
  virtual ~GenerateCall() = default;

  // On gRPC's thread; the object keeps itself alive from here to Done.
  void Start(const grpc::ByteBuffer& request);

  // When gRPC was handed something that it has not reported done: the look of GenerateCalls; 0: it
  // has nothing.
  uint64_t waiting_since() const { return waiting_since_; }
  // Breaks the call if that is still so: the client takes nothing.
  void Break(uint64_t waiting_since);

 protected:
  GenerateCall(RpcMethod method, const CallContext& shared, grpc::CallbackServerContext& context)
      : shared_(shared),
        open_(shared.open),
        context_(&context),
        record_(method, shared.mode, shared.metrics, context) {}

  // The reactions of both reactors.
  void WriteDone(bool ok);
  void Cancelled();
  void Done();

 private:
  // Called by the owner.
  virtual void Begin(const Request& request, const ModelFacts& model) = 0;
  virtual void Consume(StreamUpdate update) = 0;
  // Starts a write if there is something to write: true, and the write owns the call.
  virtual bool WriteNext() = 0;
  // All has been consumed and written, without an error.
  virtual absl::Status Complete() = 0;
  virtual void FinishWith(grpc::Status status) = 0;

  void Prepare(const grpc::ByteBuffer& request);
  // Counts a refusal.
  absl::StatusOr<LoadedModel> Model() const;
  absl::Status Submit(const grpc::ByteBuffer& bytes);
  void Notify();
  void Continue();
  void Take(StreamUpdate update, bool gone);
  void End(const absl::Status& status);
  bool cancelled();
  absl::Status WhyGone();

 protected:
  void MarkWaiting();

 private:
  const CallContext shared_;
  const OpenCalls::Call open_;
  std::shared_ptr<GenerateCall> self_;

  std::mutex mutex_;                      // to `stalled_`
  grpc::CallbackServerContext* context_;  // nullptr once done
  std::shared_ptr<TokenStream> stream_;   // written by the owner
  bool owned_ = true;
  bool news_ = false;       // came while the call was owned
  bool cancelled_ = false;  // by the client, its deadline, or a broken connection; or
  bool stalled_ = false;    // by us, since the client took nothing

  // The owner's.
  CallRecord record_;
  std::optional<absl::Status> result_;  // how the request ended
  CallDetails details_;

  std::atomic<uint64_t> waiting_since_{0};
};

class UnaryGenerate final : public GenerateCall, public grpc::ServerUnaryReactor {
 public:
  UnaryGenerate(const CallContext& shared, grpc::CallbackServerContext& context,
                grpc::ByteBuffer* response)
      : GenerateCall(RpcMethod::kGenerate, shared, context), response_(response) {}

  void OnCancel() override { Cancelled(); }
  void OnDone() override { Done(); }

 private:
  void Begin(const Request& request, const ModelFacts& model) override;
  void Consume(StreamUpdate update) override;
  bool WriteNext() override { return false; }
  absl::Status Complete() override;
  void FinishWith(grpc::Status status) override;

  grpc::ByteBuffer* const response_;
  std::optional<ResponseMaker> maker_;
};

class StreamGenerate final : public GenerateCall,
                             public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  StreamGenerate(const CallContext& shared, grpc::CallbackServerContext& context)
      : GenerateCall(RpcMethod::kGenerateStream, shared, context) {}

  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnCancel() override { Cancelled(); }
  void OnDone() override { Done(); }

 private:
  void Begin(const Request& request, const ModelFacts& model) override;
  void Consume(StreamUpdate update) override;
  bool WriteNext() override;
  absl::Status Complete() override { return absl::OkStatus(); }
  void FinishWith(grpc::Status status) override;

  std::optional<EventMaker> maker_;
  std::deque<v1::GenerateEvent> events_;
  grpc::ByteBuffer written_;  // in flight
};

// The calls that are going on. Any thread.
class GenerateCalls {
 public:
  void Add(GenerateCall* call);
  void Remove(GenerateCall* call);

  // Looks at them, counted from 1.
  uint64_t looks() const { return looks_; }
  // Whether gRPC has something of any call that it has not reported done.
  bool AnyWaits();
  // One look more, and ends the calls that have waited at `most` of them.
  void Look(uint64_t most);

 private:
  std::vector<std::shared_ptr<GenerateCall>> All();

  std::atomic<uint64_t> looks_{1};
  std::mutex mutex_;
  std::map<GenerateCall*, std::weak_ptr<GenerateCall>> calls_;
};

}  // namespace sirocco
