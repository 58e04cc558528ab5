// sirocco info: what a model's files hold and how it would run, what a server serves, or what this
// machine has for one.
#include <cinttypes>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "graphs/executor.h"
#include "graphs/prefill_sizes.h"
#include "server/commands/client.h"
#include "server/commands/commands.h"
#include "server/commands/config_flags.h"
#include "server/commands/machine.h"
#include "server/commands/report.h"
#include "server/model/dtypes.h"
#include "server/model/load.h"

namespace sirocco {
namespace {

void Row(const char* name, const std::string& value) {
  std::printf("%-18s %s\n", name, value.c_str());
}

std::string YesNo(bool value) { return value ? "yes" : "no"; }

int InfoOfServer(const ClientOptions& server) {
  const absl::StatusOr<Client> client = Client::Open(server);
  if (!client.ok()) return Fail(client.status());
  auto context = client->NewContext();
  v1::Model model;
  if (grpc::Status status = client->stub().GetModel(context.get(), {}, &model); !status.ok()) {
    return FailCall(server.address, status);
  }
  Row("server", absl::StrCat(server.address, ", version ", model.version()));
  Row("model", model.name());
  Row("architecture", model.architecture());
  Row("parameters", absl::StrCat(model.parameter_count()));
  Row("vocabulary", absl::StrCat(model.vocab_size()));
  Row("end tokens", absl::StrJoin(model.end_token_ids(), ", "));
  Row("tokenizer", YesNo(model.has_tokenizer()));
  Row("chat template", YesNo(model.has_chat_template()));
  Row("dtype", model.dtype());
  Row("backend", absl::StrCat(model.backend(), ", ", model.device()));
  Row("mode", model.mode());
  Row("max length", absl::StrCat(model.max_length(), " tokens"));
  Row("max batch size", absl::StrCat(model.max_batch_size()));
  return 0;
}

std::string ShapeText(const StoredTensor& tensor) { return absl::StrJoin(tensor.shape, " x "); }

void PrintTensors(const TensorSource& source, bool all) {
  struct Sum {
    uint64_t count = 0, bytes = 0;
  };
  std::map<std::string, Sum> by_type;
  for (const StoredTensor& tensor : source.tensors()) {
    Sum& sum = by_type[std::string(NameOf(tensor.type))];
    ++sum.count;
    sum.bytes += tensor.bytes;
  }
  for (const auto& [type, sum] : by_type) {
    Row("tensors", absl::StrCat(sum.count, " in ", type, ", ", sum.bytes, " bytes"));
  }
  if (!all) return;
  std::printf("\n%-52s %-6s %-16s %12s  %s\n", "tensor", "type", "shape", "bytes", "file, offset");
  for (const StoredTensor& tensor : source.tensors()) {
    std::printf("%-52s %-6s %-16s %12" PRIu64 "  %s, %" PRIu64 "\n", tensor.name.c_str(),
                std::string(NameOf(tensor.type)).c_str(), ShapeText(tensor).c_str(), tensor.bytes,
                tensor.file.c_str(), tensor.offset);
  }
}

// How steps of prompts are issued.
std::string Prefill(const ServedModel& model, const Config& config) {
  ExecutorOptions options;
  options.mode = model.facts.mode;
  options.max_length = model.facts.max_length;
  options.prefill_chunk_size = static_cast<int32_t>(config.prefill_chunk_size);
  options.fill_prefill = model.device->fills_prefill();
  const PrefillSizes sizes(options);
  if (sizes.all().empty()) return "launched operation by operation";
  return absl::StrCat(
      "filled up to ", absl::StrJoin(sizes.all(), ", "), " rows, and ",
      UsesGraphs(model.facts.mode) ? "replayed" : "launched operation by operation");
}

void PrintPlan(const ServedModel& model) {
  std::printf("\ndecode plan of mode %s\n", std::string(NameOf(model.facts.mode)).c_str());
  ModelWeights shapes;
  LayOutWeights(model.files.descriptor, model.dtypes.TypesOf(model.files.tensors.get()), shapes);
  for (const PlanEntry& entry :
       DescribeDecodePlan(model.files.descriptor, model.facts.mode, shapes, model.dtypes.kv,
                          model.device->norms_where_read_rows(),
                          OfferOf(*model.device, model.files.descriptor, model.facts.mode, shapes,
                                  model.device->ActivationDType(shapes.layers.front().q.dtype),
                                  model.dtypes.kv))) {
    std::printf("  %-10s %-18s %s%s%s\n", entry.part.c_str(), entry.operation.c_str(),
                entry.detail.c_str(), entry.rows.empty() ? "" : ", ", entry.rows.c_str());
  }
}

// "26 layers of hidden size 1152, intermediate size 6912"
std::string LayersText(const ModelDescriptor& d) {
  std::string text = absl::StrCat(d.layers.size(), " of hidden size ", d.hidden_size);
  if (d.experts == 0) absl::StrAppend(&text, ", intermediate size ", d.intermediate_size);
  return text;
}

// "22 layers of 512 tokens, 4 layers without one"; "none"
std::string WindowsText(const ModelDescriptor& d) {
  std::map<int32_t, int, std::greater<>> layers;  // by window, 0 last
  for (const LayerDescriptor& layer : d.layers) ++layers[d.groups[layer.group].window];
  if (layers.size() == 1 && layers.contains(0)) return "none";
  std::string text;
  for (const auto& [window, count] : layers) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", count, count == 1 ? " layer" : " layers",
                    window == 0 ? " without one" : absl::StrCat(" of ", window, " tokens"));
  }
  return text;
}

// Why the weights are of the type that they are.
std::string WhyDType(const ServedModel& model, const Config& config) {
  if (config.dtype != "auto") return absl::StrCat("as asked, by ", config.sources.at("dtype"));
  const DType stored = StoredDType(*model.files.tensors);
  const std::string name(NameOf(stored));
  if (stored == DType::kFloat16) return "auto; most weights are float16 in the files";
  if (!InBlocks(stored)) return "auto; most weights are neither float16 nor in blocks in the files";
  if (model.dtypes.keep_blocks()) {
    return absl::StrCat("auto; most weights are ", name, ", which ", model.facts.backend,
                        " computes from");
  }
  return absl::StrCat("auto; most weights are ", name, ", from which ", model.facts.backend,
                      " does not compute: dequantised");
}

int InfoOfMachine(const Config& config) {
  for (const MachineFact& fact : DescribeMachine(config)) Row(fact.name.c_str(), fact.value);
  Row("mode", absl::StrCat(std::string(NameOf(config.mode)), " (", config.sources.at("mode"), ")"));
  return 0;
}

// Of this machine, where no model is named.
int InfoHere(const ConfigFlags& flags, bool tensors, bool plan) {
  absl::StatusOr<Config> config = flags.Load();
  if (!config.ok()) return Fail(config.status());
  if (config->model.empty() && !tensors && !plan) return InfoOfMachine(*config);
  absl::StatusOr<std::unique_ptr<ServedModel>> opened = OpenServedModel(*config);
  if (!opened.ok()) return Fail(opened.status());
  const ServedModel& model = **opened;
  const ModelDescriptor& d = model.files.descriptor;
  Row("model", absl::StrCat(config->model, " (", model.files.format, ")"));
  Row("served name", model.facts.name);
  Row("architecture", d.architecture);
  Row("layers", LayersText(d));
  Row("windows", WindowsText(d));
  if (d.experts > 0) {
    Row("experts", absl::StrCat(d.experts, " of intermediate size ", d.intermediate_size, ", ",
                                d.experts_a_row, " a token"));
  }
  Row("heads", absl::StrCat(d.heads, " of ", d.head_dim, ", ", d.kv_heads, " for keys and values"));
  Row("vocabulary", absl::StrCat(d.vocab_size, d.tied_head ? ", tied head" : ""));
  Row("made for", absl::StrCat(d.max_position, " tokens"));
  Row("end tokens", absl::StrJoin(model.facts.end_token_ids, ", "));
  Row("tokenizer", model.tokenizer == nullptr
                       ? "no"
                       : absl::StrCat("yes, ", model.tokenizer->vocab_size(), " ids"));
  Row("chat template", YesNo(model.chat_template != nullptr));
  Row("dtype", absl::StrCat(model.facts.dtype, " (", WhyDType(model, *config), ")"));
  Row("KV cache", absl::StrCat("of ", std::string(NameOf(model.dtypes.kv))));
  Row("backend",
      absl::StrCat(model.facts.backend, ", ", model.facts.device, " (", model.why_device, ")"));
  for (const std::string& note : model.device->notes()) Row("kernels", note);
  Row("mode",
      absl::StrCat(std::string(NameOf(model.facts.mode)), " (", config->sources.at("mode"), ")"));
  Row("prefill", Prefill(model, *config));
  Row("max length", absl::StrCat(model.facts.max_length, " tokens"));
  Row("max batch size", absl::StrCat(model.facts.max_batch_size));
  PrintTensors(*model.files.tensors, tensors);
  if (plan) PrintPlan(model);
  return 0;
}

}  // namespace

void AddInfo(CLI::App& app, int& exit_status) {
  struct Options {
    ClientOptions server;
    bool tensors = false, plan = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "info",
      "Show what a server serves (--address), or what a model's files hold (--model), or with\n"
      "neither what a server has here: processor, memory, driver, GPU, ports, limits\n\n"
      "  sirocco info                       would one start here, and on what?\n"
      "  sirocco info --model MODEL.gguf    what is in it, and how it would run\n"
      "  sirocco info --address HOST:PORT   what is served there");
  AddClientFlags(*command, options->server);
  const CLI::Option* address = command->get_option("--address");
  command->add_flag("--tensors", options->tensors, "with --model: list every tensor");
  command->add_flag("--plan", options->plan, "with --model: print the mode's decode plan");
  auto flags = ConfigFlags::AddTo(*command);
  command->get_option("--model")->excludes(command->get_option("--address"));
  command->callback([options, flags, address, &exit_status] {
    exit_status = address->count() == 0 ? InfoHere(*flags, options->tensors, options->plan)
                                        : InfoOfServer(options->server);
  });
}

}  // namespace sirocco
