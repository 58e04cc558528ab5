// sirocco: the server, its clients and its tools in one program.
#include <exception>

#include "server/api/version.h"
#include "server/commands/commands.h"
#include "server/commands/report.h"
#include "server/config/config.h"
#include "server/process/process.h"

namespace {

constexpr char kAbout[] =
    "Sirocco serves language models over gRPC.\n\n"
    "  sirocco serve --model MODEL.gguf            serve a model on 127.0.0.1:50051\n"
    "  sirocco generate --chat 'Why is it windy?'  stream an answer from it\n\n"
    "EOLE_TORCH_COMPILE (0) and EOLE_COMPILE_MODE (2) choose the execution mode:\n"
    "0: eager; 1 with 0: decoder_graph, 1: decoder, 2: layer_graph, 3: layer.";

}  // namespace

int main(int argc, char** argv) {
  sirocco::PrepareProcess();
  CLI::App app(kAbout, "sirocco");
  app.set_version_flag("--version", sirocco::kVersion);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  int exit_status = 0;
  sirocco::AddServe(app, exit_status);
  sirocco::AddGenerate(app, exit_status);
  sirocco::AddChat(app, exit_status);
  sirocco::AddBench(app, exit_status);
  sirocco::AddTokenize(app, exit_status);
  sirocco::AddRun(app, exit_status);
  sirocco::AddScore(app, exit_status);
  sirocco::AddInfo(app, exit_status);
  sirocco::AddCheckConfig(app, exit_status);
  if (auto mode = sirocco::ModeFromEnvironment(); !mode.ok()) return sirocco::Fail(mode.status());
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return sirocco::Fail(absl::InvalidArgumentError(error.what()));
  } catch (const std::exception& error) {
    return sirocco::Fail(absl::InternalError(error.what()));
  }
  // A command's answer is what it prints; a server's line there is for who waits for it.
  if (exit_status == 0 && !app.got_subcommand("serve") && !sirocco::OutputIsWhole()) {
    return sirocco::Fail(absl::UnavailableError("standard output: not all could be written"));
  }
  return exit_status;
}
