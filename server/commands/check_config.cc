// sirocco check-config: validates a configuration, and the model it names, and prints what holds.
#include <cstdio>

#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/report.h"
#include "server/model/load.h"
#include "server/security/security.h"

namespace sirocco {
namespace {

int CheckConfig(const ConfigFlags& flags) {
  absl::StatusOr<Config> config = flags.Load();
  if (!config.ok()) return Fail(config.status());
  Metrics metrics(/*vllm_names=*/false);
  const auto security = Security::Open(*config, metrics);
  if (!security.ok()) return Fail(security.status());
  if (!config->model.empty()) {
    absl::StatusOr<std::unique_ptr<ServedModel>> model = OpenServedModel(*config);
    if (!model.ok()) return Fail(model.status());
  }
  std::fputs(ToYaml(*config).c_str(), stdout);
  return 0;
}

}  // namespace

void AddCheckConfig(CLI::App& app, int& exit_status) {
  CLI::App* command =
      app.add_subcommand("check-config",
                         "Validate a configuration (and its model's files) and print what holds, "
                         "and where it came from\n\n"
                         "  sirocco check-config --config sirocco.yaml\n"
                         "  sirocco check-config --model MODEL.gguf --max-batch-size 256");
  auto flags = ConfigFlags::AddTo(*command);
  command->callback([flags, &exit_status] { exit_status = CheckConfig(*flags); });
}

}  // namespace sirocco
