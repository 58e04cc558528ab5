// What a fault of the device does to a served process, by execution mode: the first one makes
// health NOT_SERVING, ends every call with INTERNAL and the process with 70. On the CPU with a
// device that says so, and where there is a GPU by a kernel that writes to nobody's memory
// (faulty_plugin.cc); and single calls of the device that fail. And what a device does that hangs:
// health says so while it lasts, and nobody waits for it when the process is to end.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "graphs/mode.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "sirocco/v1/inference.grpc.pb.h"
#include "tests/e2e/served_process.h"
#include "tests/kernels/devices.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

using ::grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kDeviceLost = 70;                // the exit status
constexpr std::chrono::seconds kPatience{60};  // for what takes a moment
constexpr std::chrono::seconds kSoon{15};      // "within seconds", on a machine under load
constexpr int kMaxLength = 32768;              // of streams that outlast a test

// From a build's output or from a bundle with tests.
std::filesystem::path FirstThere(const std::vector<std::string>& places) {
  for (const std::string& place : places) {
    std::filesystem::path path(TestPath(place));
    if (std::filesystem::exists(path)) return std::filesystem::canonical(path);
  }
  ADD_FAILURE() << "not there: " << TestPath(places.front());
  return {};
}

struct Served {
  bool cuda;
  Mode mode;
};

std::string NameOf(const testing::TestParamInfo<Served>& info) {
  return absl::StrCat(info.param.cuda ? "cuda_" : "cpu_", std::string(NameOf(info.param.mode)));
}

std::vector<Served> AllServed() {
  bool has_cuda = false;
  for (const DeviceCase& device : Devices()) has_cuda |= device.name.rfind("cuda", 0) == 0;
  std::vector<Served> all;
  for (const bool cuda : {false, true}) {
    if (cuda && !has_cuda) continue;
    for (const Mode mode : kAllModes) all.push_back({cuda, mode});
  }
  return all;
}

// The variables that ask for a mode; kAllModes stands in the order of EOLE_COMPILE_MODE.
std::map<std::string, std::string> VariablesOf(Mode mode) {
  return {
      {"EOLE_TORCH_COMPILE", mode == Mode::kEager ? "0" : "1"},
      {"EOLE_COMPILE_MODE", mode == Mode::kEager ? "2" : absl::StrCat(static_cast<int>(mode) - 1)}};
}

bool Eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

std::unique_ptr<grpc::ClientContext> NewContext() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + kPatience);
  return context;
}

v1::GenerateRequest LongRequest() {
  v1::GenerateRequest request;
  for (const uint32_t id : {5, 6, 7}) request.mutable_prompt_token_ids()->add_ids(id);
  request.set_max_new_tokens(kMaxLength - 3);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

// A connection. A server that shuts down waits a little for the other side to close it, which a
// client that waits for nothing does not notice; so it goes before the process's end is waited for.
struct Client {
  explicit Client(const std::string& address)
      : channel(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())),
        inference(v1::Inference::NewStub(channel)),
        health(grpc::health::v1::Health::NewStub(channel)) {}

  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::Inference::Stub> inference;
  const std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

// A stream whose first event has come.
class RunningStream {
 public:
  explicit RunningStream(const Client& client)
      : context_(NewContext()),
        reader_(client.inference->GenerateStream(context_.get(), LongRequest())) {
    EXPECT_TRUE(reader_->Read(&event_));
  }

  void Cancel() { context_->TryCancel(); }

  // How it ends.
  grpc::Status End() {
    while (reader_->Read(&event_)) {
    }
    return reader_->Finish();
  }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> reader_;
  v1::GenerateEvent event_;
};

// A watch of one of health's names.
class Watch {
 public:
  Watch(const Client& client, const std::string& name) : context_(NewContext()) {
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    reader_ = client.health->Watch(context_.get(), request);
  }

  // SERVICE_UNKNOWN: it has ended.
  HealthCheckResponse::ServingStatus Next() {
    HealthCheckResponse response;
    return reader_->Read(&response) ? response.status() : HealthCheckResponse::SERVICE_UNKNOWN;
  }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader_;
};

class FaultTest : public testing::TestWithParam<Served> {
 protected:
  static void SetUpTestSuite() {
    char path[] = "/tmp/sirocco-fault.XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    folder_ = new std::filesystem::path(path);
    InstallProgram();
    MakeModel();
  }
  static void TearDownTestSuite() {
    std::filesystem::remove_all(*folder_);
    delete folder_;
  }

  ~FaultTest() override {
    std::filesystem::remove(FaultFile());
    std::filesystem::remove(ScheduleFile());
    LetGoOn();
  }

  static std::string FaultFile() { return (*folder_ / "fault").string(); }
  static void BreakTheDevice() { std::ofstream(FaultFile()).put('!'); }
  static std::string HangFile() { return (*folder_ / "hang").string(); }
  static void HangTheDevice() { std::ofstream(HangFile()).put('!'); }
  static void LetGoOn() { std::filesystem::remove(HangFile()); }
  static std::string ScheduleFile() { return (*folder_ / "schedule").string(); }
  static void Schedule(const std::string& rules) {
    std::ofstream(ScheduleFile() + ".new") << rules;
    std::filesystem::rename(ScheduleFile() + ".new", ScheduleFile());
  }

  // Two sequences run at once; more wait.
  void Start(const std::vector<std::string>& more_flags = {}) {
    Try(more_flags);
    ASSERT_TRUE(not_started_.ok()) << not_started_;
  }

  // The same where it may fail.
  void Try(const std::vector<std::string>& more_flags = {}) {
    std::map<std::string, std::string> environment = VariablesOf(GetParam().mode);
    environment["SIROCCO_TEST_FAULT_FILE"] = FaultFile();
    environment["SIROCCO_TEST_HANG_FILE"] = HangFile();
    environment["SIROCCO_FAULTS"] = ScheduleFile();
    std::vector<std::string> flags = {
        "--model",      (*folder_ / "model").string(), "--backend", "cuda", "--max-batch-size", "2",
        "--max-length", absl::StrCat(kMaxLength)};
    flags.insert(flags.end(), more_flags.begin(), more_flags.end());
    if (GetParam().cuda) {
      environment["SIROCCO_TEST_CUDA_PLUGIN"] =
          FirstThere({"../kernels/cuda/libsirocco_cuda.so", "../lib/libsirocco_cuda.so"}).string();
    }
    auto server = ServedProcess::Start({.program = (*folder_ / "bin/sirocco").string(),
                                        .flags = std::move(flags),
                                        .environment = std::move(environment),
                                        .log = (*folder_ / "log").string()});
    not_started_ = server.status();
    if (server.ok()) server_ = *std::move(server);
  }

  void ExpectFault(const grpc::Status& status) const {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL) << status.error_message();
    // What failed, and where, is for the log alone.
    EXPECT_EQ(status.error_message(), "the server has failed; its log says why");
  }

  static std::string BrokenDevice() {
    return GetParam().cuda ? "cudaErrorIllegalAddress" : "the deferring device";
  }

  // `why`: what the log says of the device.
  void ExpectExit(const std::string& why = BrokenDevice()) {
    EXPECT_EQ(server_->WaitForExit(kSoon), kDeviceLost) << server_->Log();
    EXPECT_THAT(server_->Log(), HasSubstr("the device has failed: "));
    EXPECT_THAT(server_->Log(), HasSubstr(why));
  }

  // Of a server with two streams that run and two calls that wait.
  void ExpectTheEnd(const std::function<void()>& break_the_device, const std::string& why);

  std::unique_ptr<ServedProcess> server_;
  absl::Status not_started_;

 private:
  // The program looks for its plugin beside itself: a copy of it has another one there.
  static void InstallProgram() {
    const std::filesystem::path program = FirstThere({"../server/sirocco", "../bin/sirocco"});
    std::filesystem::create_directories(*folder_ / "bin");
    std::filesystem::create_directories(*folder_ / "lib");
    std::filesystem::copy_file(program, *folder_ / "bin/sirocco");
    std::filesystem::create_symlink(FirstThere({"e2e/libfaulty_device.so"}),
                                    *folder_ / "lib/libsirocco_cuda.so");
    const std::filesystem::path libraries = program.parent_path().parent_path() / "lib";
    if (!std::filesystem::exists(libraries)) return;  // those of the system
    for (const auto& library : std::filesystem::directory_iterator(libraries)) {
      if (library.path().filename() == "libsirocco_cuda.so") continue;
      std::filesystem::create_symlink(library.path(), *folder_ / "lib" / library.path().filename());
    }
  }

  // A tiny one that may go on for long.
  static void MakeModel() {
    const std::filesystem::path golden(GoldenPath("llama_tied"));
    std::ifstream in(golden / "config.json");
    const std::string config((std::istreambuf_iterator<char>(in)), {});
    const std::string longer =
        absl::StrReplaceAll(config, {{"\"max_position_embeddings\": 512",
                                      absl::StrCat("\"max_position_embeddings\": ", kMaxLength)}});
    ASSERT_NE(config, longer);
    std::filesystem::create_directories(*folder_ / "model");
    std::ofstream(*folder_ / "model/config.json") << longer;
    std::filesystem::copy_file(golden / "model.safetensors", *folder_ / "model/model.safetensors");
  }

  static std::filesystem::path* folder_;
};

std::filesystem::path* FaultTest::folder_ = nullptr;

void FaultTest::ExpectTheEnd(const std::function<void()>& break_the_device,
                             const std::string& why) {
  {
    const Client client(server_->address());
    Watch ready(client, ""), alive(client, "liveness");
    EXPECT_EQ(ready.Next(), HealthCheckResponse::SERVING);
    EXPECT_EQ(alive.Next(), HealthCheckResponse::SERVING);
    RunningStream first(client), second(client);
    const auto wait_in_queue = [&client] {
      v1::GenerateResponse response;
      return client.inference->Generate(NewContext().get(), LongRequest(), &response);
    };
    std::vector<std::future<grpc::Status>> calls;
    calls.push_back(std::async(std::launch::async, [&] { return first.End(); }));
    calls.push_back(std::async(std::launch::async, [&] { return second.End(); }));
    calls.push_back(std::async(std::launch::async, wait_in_queue));
    calls.push_back(std::async(std::launch::async, wait_in_queue));
    EXPECT_TRUE(Eventually([&] { return server_->Metric("sirocco_queue_requests") == 2; }));
    EXPECT_THAT(server_->Get("/readyz"), StartsWith("HTTP/1.1 200"));

    break_the_device();
    for (std::future<grpc::Status>& call : calls) ExpectFault(call.get());
    EXPECT_EQ(ready.Next(), HealthCheckResponse::NOT_SERVING);
    EXPECT_EQ(alive.Next(), HealthCheckResponse::NOT_SERVING);
    EXPECT_EQ(ready.Next(), HealthCheckResponse::SERVICE_UNKNOWN);  // it has ended
  }
  ExpectExit(why);
  EXPECT_EQ(server_->Get("/healthz"), "");
}

TEST_P(FaultTest, EndsEveryCallAndTheProcess) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ExpectTheEnd(BreakTheDevice, BrokenDevice());
}

// Whichever call it is that fails, and though it would work the next time.
TEST_P(FaultTest, OfASingleCallIsOneOfTheDevice) {
  for (const std::string call : {"copy", "launch", "wait"}) {
    SCOPED_TRACE(call);
    std::filesystem::remove(ScheduleFile());
    ASSERT_NO_FATAL_FAILURE(Start());
    ExpectTheEnd([&call] { Schedule(absl::StrCat("device:", call, "@3")); },
                 absl::StrCat("injected: device:", call));
  }
}

TEST_P(FaultTest, WhileLoadingEndsTheStart) {
  for (const std::string call : {"allocate", "copy", "launch", "prepare", "record", "wait"}) {
    if (call == "record" && !UsesGraphs(GetParam().mode)) continue;
    SCOPED_TRACE(call);
    Schedule(absl::StrCat("device:", call, "@2"));
    Try();
    const std::string said(not_started_.message());
    EXPECT_THAT(said, HasSubstr("exit status 1;"));
    EXPECT_THAT(said, HasSubstr("\nsirocco: "));
    EXPECT_THAT(said, HasSubstr(absl::StrCat("injected: device:", call)));
  }
}

// The calls that a drain waits for end by the fault, and the exit is not the drain's.
TEST_P(FaultTest, EndsADrain) {
  ASSERT_NO_FATAL_FAILURE(Start());
  {
    const Client client(server_->address());
    RunningStream stream(client);
    Watch ready(client, "");
    EXPECT_EQ(ready.Next(), HealthCheckResponse::SERVING);
    server_->Terminate();
    EXPECT_EQ(ready.Next(), HealthCheckResponse::NOT_SERVING);
    EXPECT_EQ(server_->WaitForExit(std::chrono::milliseconds(0)), std::nullopt);
    BreakTheDevice();
    ExpectFault(stream.End());
  }
  ExpectExit();
}

INSTANTIATE_TEST_SUITE_P(Served, FaultTest, testing::ValuesIn(AllServed()), NameOf);

using HangTest = FaultTest;

TEST_P(HangTest, IsToldWhileItLasts) {
  ASSERT_NO_FATAL_FAILURE(Start({"--health-stall-timeout", "500ms"}));
  const Client client(server_->address());
  Watch ready(client, ""), inference(client, "sirocco.v1.Inference"), alive(client, "liveness");
  for (Watch* watch : {&ready, &inference, &alive}) {
    EXPECT_EQ(watch->Next(), HealthCheckResponse::SERVING);
  }
  RunningStream stream(client);
  HangTheDevice();
  EXPECT_EQ(ready.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(inference.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_THAT(server_->Get("/readyz"), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("stalled")));
  EXPECT_THAT(server_->Get("/healthz"), StartsWith("HTTP/1.1 200"));
  LetGoOn();
  EXPECT_EQ(ready.Next(), HealthCheckResponse::SERVING);
  EXPECT_EQ(inference.Next(), HealthCheckResponse::SERVING);
  EXPECT_THAT(server_->Get("/readyz"), StartsWith("HTTP/1.1 200"));
  // Of liveness there is no news before the end.
  stream.Cancel();
  server_->Terminate();
  EXPECT_EQ(ready.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(alive.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(alive.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
}

// A device that never ends its step holds up neither the calls' end nor the process's.
TEST_P(HangTest, DoesNotHoldUpADrain) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-timeout", "300ms"}));
  {
    const Client client(server_->address());
    RunningStream running(client);
    HangTheDevice();
    std::future<grpc::Status> end =
        std::async(std::launch::async, [&running] { return running.End(); });
    server_->Terminate();
    const grpc::Status status = end.get();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  }
  EXPECT_EQ(server_->WaitForExit(kSoon), 0) << server_->Log();
  EXPECT_THAT(server_->Log(), HasSubstr("the device has not ended its step"));
}

INSTANTIATE_TEST_SUITE_P(Served, HangTest,
                         testing::Values(Served{false, Mode::kEager},
                                         Served{false, Mode::kDecoderGraph}),
                         NameOf);

}  // namespace
}  // namespace sirocco
