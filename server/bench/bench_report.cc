#include "server/bench/bench_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/model/memory.h"

namespace sirocco {
namespace {

using nlohmann::ordered_json;

std::string Name(Mode mode) { return std::string(NameOf(mode)); }
std::string Name(DType dtype) { return std::string(NameOf(dtype)); }

std::string Head(const BenchReport& r) {
  std::string out;
  absl::StrAppendFormat(&out, "model    %s (%s), %.3fe9 parameters, %s, %s\n", r.model,
                        r.architecture, static_cast<double>(r.parameters) * 1e-9,
                        std::string(r.dtypes.weights_name()), BytesForPeople(r.weight_bytes));
  absl::StrAppendFormat(&out, "device   %s, %s (%s)\n", r.backend, r.device, r.why_device);
  absl::StrAppendFormat(&out, "stream   %.0f GB/s read in this run; shares are of %.0f GB/s\n",
                        r.measured_stream * 1e-9, r.stream * 1e-9);
  absl::StrAppendFormat(&out, "lengths  prompts of %d tokens, outputs of %d; medians of %d\n",
                        r.measure.prompt_length, r.measure.output_length, r.measure.repeat);
  absl::StrAppendFormat(&out, "load     %.2f s\n", r.load_seconds);
  for (const ModeReport& mode : r.modes) {
    absl::StrAppendFormat(&out, "start    %-13s pack %.3f s, prepare %.3f s, kv %.3f s",
                          Name(mode.mode), mode.pack_seconds, mode.prepare_seconds,
                          mode.kv_seconds);
    if (mode.graphs > 0) {
      absl::StrAppendFormat(&out, ", capture %.3f s: %d graphs, %s", mode.capture_seconds,
                            mode.graphs, BytesForPeople(mode.graph_bytes));
    }
    if (mode.prefill_graphs > 0) {
      absl::StrAppendFormat(&out, ", and %d of prompts, %s", mode.prefill_graphs,
                            BytesForPeople(mode.prefill_graph_bytes));
    }
    out.push_back('\n');
    if (mode.prefill_replays + mode.prefill_filling_rows > 0) {
      absl::StrAppendFormat(&out,
                            "prompts  %-13s %d steps replayed, %d launched by operations, %d rows "
                            "filled up\n",
                            Name(mode.mode), mode.prefill_replays, mode.prefill_launches,
                            mode.prefill_filling_rows);
    }
  }
  return out;
}

void AppendStages(const std::string& title, const std::vector<Stage>& stages, double stream,
                  std::string* out) {
  double all = 0;
  for (const Stage& stage : stages) all += stage.seconds;
  absl::StrAppendFormat(out, "\n%s: %.1f us in all\n", title, all * 1e6);
  absl::StrAppendFormat(out, "  %-28s %5s %11s %6s %10s %9s %6s\n", "stage", "times", "us", "part",
                        "MB", "GB/s", "share");
  for (const Stage& stage : stages) {
    absl::StrAppendFormat(out, "  %-28s %5d %11.1f %5.1f%%", stage.name, stage.operations,
                          stage.seconds * 1e6, all > 0 ? 100 * stage.seconds / all : 0);
    if (stage.bytes > 0 && stage.seconds > 0) {
      const double rate = static_cast<double>(stage.bytes) / stage.seconds;
      absl::StrAppendFormat(out, " %10.2f %9.1f %5.1f%%", static_cast<double>(stage.bytes) * 1e-6,
                            rate * 1e-9, 100 * rate / stream);
    }
    out->push_back('\n');
  }
}

ordered_json StagesJson(const std::vector<Stage>& stages) {
  ordered_json out = ordered_json::array();
  for (const Stage& stage : stages) {
    out.push_back({{"stage", stage.name},
                   {"operations", stage.operations},
                   {"seconds", stage.seconds},
                   {"bytes", stage.bytes}});
  }
  return out;
}

ordered_json BatchJson(const Measurement& m, double stream) {
  return {{"batch", m.batch},
          {"prefill_seconds", m.prefill_seconds},
          {"prefill_tokens", m.PrefillTokens()},
          {"prefill_tokens_per_second", m.PrefillTokensPerSecond()},
          {"prefill_steps", m.prefill_steps},
          {"device_prefill_seconds", m.device_prefill_seconds},
          {"launch_prefill_seconds", m.launch_prefill_seconds},
          {"decode_steps", m.decode_steps},
          {"decode_seconds", m.decode_seconds},
          {"device_decode_seconds", m.device_decode_seconds},
          {"launch_decode_seconds", m.launch_decode_seconds},
          {"step_seconds", m.StepSeconds()},
          {"tokens_per_second", m.DecodeTokensPerSecond()},
          {"floor_bytes", m.floor_bytes},
          {"share_of_experts", m.share_of_experts},
          {"bytes_per_second", m.BytesPerSecond()},
          {"share", m.BytesPerSecond() / stream}};
}

}  // namespace

std::string BenchTables(const BenchReport& r) {
  std::string out = Head(r);
  // "launch": what the host was in Launch for, of all steps of prompts and of a decode step.
  absl::StrAppendFormat(&out, "\n%-14s %5s %15s %11s %6s %10s %10s %11s %10s %10s %10s %8s %6s\n",
                        "mode", "batch", "prefill tok/s", "prefill ms", "steps", "device ms",
                        "launch ms", "us/step", "device us", "launch us", "tok/s", "GB/s", "share");
  for (const ModeReport& mode : r.modes) {
    for (const Measurement& m : mode.batches) {
      absl::StrAppendFormat(&out, "%-14s %5d %15.0f %11.2f %6d %10.2f %10.2f", Name(mode.mode),
                            m.batch, m.PrefillTokensPerSecond(), m.prefill_seconds * 1e3,
                            m.prefill_steps, m.device_prefill_seconds * 1e3,
                            m.launch_prefill_seconds * 1e3);
      absl::StrAppendFormat(&out, " %11.1f %10.1f %10.1f %10.1f %8.1f %5.1f%%\n",
                            m.StepSeconds() * 1e6, m.device_decode_seconds / m.decode_steps * 1e6,
                            m.launch_decode_seconds / m.decode_steps * 1e6,
                            m.DecodeTokensPerSecond(), m.BytesPerSecond() * 1e-9,
                            100 * m.BytesPerSecond() / r.stream);
    }
  }
  for (const ModeReport& mode : r.modes) {
    for (const BatchStages& at : mode.stages) {
      AppendStages(absl::StrCat(Name(mode.mode), ", batch ", at.batch, ", a decode step"),
                   at.stages.decode, r.stream, &out);
      AppendStages(absl::StrCat(Name(mode.mode), ", batch ", at.batch, ", a prefill step of ",
                                at.stages.prefill_rows, " rows"),
                   at.stages.prefill, r.stream, &out);
    }
  }
  return out;
}

ordered_json BenchJson(const BenchReport& r) {
  ordered_json modes = ordered_json::array();
  for (const ModeReport& mode : r.modes) {
    ordered_json batches = ordered_json::array();
    for (const Measurement& m : mode.batches) batches.push_back(BatchJson(m, r.stream));
    ordered_json stages = ordered_json::array();
    for (const BatchStages& at : mode.stages) {
      stages.push_back({{"batch", at.batch},
                        {"decode", StagesJson(at.stages.decode)},
                        {"prefill_rows", at.stages.prefill_rows},
                        {"prefill", StagesJson(at.stages.prefill)}});
    }
    modes.push_back({{"mode", Name(mode.mode)},
                     {"pack_seconds", mode.pack_seconds},
                     {"prepare_seconds", mode.prepare_seconds},
                     {"capture_seconds", mode.capture_seconds},
                     {"graphs", mode.graphs},
                     {"graph_bytes", mode.graph_bytes},
                     {"prefill_graphs", mode.prefill_graphs},
                     {"prefill_graph_bytes", mode.prefill_graph_bytes},
                     {"prefill_replays", mode.prefill_replays},
                     {"prefill_launches", mode.prefill_launches},
                     {"prefill_filling_rows", mode.prefill_filling_rows},
                     {"kv_seconds", mode.kv_seconds},
                     {"batches", std::move(batches)},
                     {"stages", std::move(stages)}});
  }
  return {{"model", r.model},
          {"architecture", r.architecture},
          {"parameters", r.parameters},
          {"weight_bytes", r.weight_bytes},
          {"backend", r.backend},
          {"device", r.device},
          {"dtype", std::string(r.dtypes.weights_name())},
          {"kv_cache_dtype", Name(r.dtypes.kv)},
          {"prompt_length", r.measure.prompt_length},
          {"output_length", r.measure.output_length},
          {"repeat", r.measure.repeat},
          {"seed", r.measure.seed},
          {"load_seconds", r.load_seconds},
          {"measured_stream", r.measured_stream},
          {"stream", r.stream},
          {"modes", std::move(modes)}};
}

}  // namespace sirocco
