#include "server/metrics/model_metrics.h"

#include <prometheus/client_metric.h>

#include <string>

namespace sirocco {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily NewFamily(const char* name, const char* help, MetricType type) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void Add(MetricFamily& family, double value,
         std::vector<prometheus::ClientMetric::Label> labels = {}) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  (family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  family.metric.push_back(std::move(metric));
}

MetricFamily Single(const char* name, const char* help, MetricType type, double value) {
  MetricFamily family = NewFamily(name, help, type);
  Add(family, value);
  return family;
}

MetricFamily GraphReplays(const ExecutorStats& stats, int32_t max_batch_size) {
  MetricFamily family =
      NewFamily("sirocco_graph_replays_total", "Decode steps that were replayed, by batch size.",
                MetricType::Counter);
  for (int32_t size = 1; size <= max_batch_size && size <= kMaxBatchSize; ++size) {
    Add(family, static_cast<double>(stats.replays[size].load(std::memory_order_relaxed)),
        {{"batch_size", std::to_string(size)}});
  }
  return family;
}

MetricFamily PrefillSteps(const ExecutorStats& stats) {
  MetricFamily family = NewFamily(
      "sirocco_prefill_steps_total",
      "Steps of prompts, replayed as one or launched operation by operation.", MetricType::Counter);
  const auto add = [&](const char* issue, const std::atomic<uint64_t>& steps) {
    Add(family, static_cast<double>(steps.load(std::memory_order_relaxed)), {{"issue", issue}});
  };
  add("replayed", stats.prefill_replays);
  add("launched", stats.prefill_launches);
  return family;
}

MetricFamily StartupSeconds(const ServedModel& model, const ExecutorStats& stats) {
  MetricFamily family =
      NewFamily("sirocco_startup_seconds", "Time that starting took, by phase.", MetricType::Gauge);
  Add(family, model.load_seconds, {{"phase", "load"}});
  // Plans composed, kernels chosen and loaded.
  Add(family, stats.pack_seconds + stats.prepare_seconds, {{"phase", "pack"}});
  Add(family, stats.capture_seconds, {{"phase", "capture"}});
  Add(family, stats.kv_seconds, {{"phase", "kv"}});
  return family;
}

MetricFamily MemoryBytes(const Device& device) {
  MetricFamily family =
      NewFamily("sirocco_memory_bytes", "Device memory, by what it is for.", MetricType::Gauge);
  for (int i = 0; i < kMemoryUses; ++i) {
    Add(family, static_cast<double>(device.counters().bytes[i].load(std::memory_order_relaxed)),
        {{"use", std::string(NameOf(static_cast<MemoryUse>(i)))}});
  }
  return family;
}

}  // namespace

std::vector<MetricFamily> CollectModelMetrics(const ServedModel& model) {
  const Executor& executor = model.engine->executor();
  const ExecutorStats& stats = executor.stats();
  const auto count = [](const std::atomic<uint64_t>& value) {
    return static_cast<double>(value.load(std::memory_order_relaxed));
  };
  std::vector<MetricFamily> out;
  MetricFamily graphs =
      NewFamily("sirocco_graphs", "Executable graphs of decode steps.", MetricType::Gauge);
  Add(graphs, count(stats.graphs_captured), {{"state", "captured"}});
  out.push_back(std::move(graphs));
  out.push_back(Single("sirocco_prefill_graphs",
                       "Executable graphs of prefill steps, one a number of rows.",
                       MetricType::Gauge, count(stats.prefill_graphs)));
  out.push_back(GraphReplays(stats, executor.options().max_batch_size));
  out.push_back(PrefillSteps(stats));
  out.push_back(Single("sirocco_prefill_filling_rows_total",
                       "Rows that filled prefill steps up to a size that is replayed.",
                       MetricType::Counter, count(stats.prefill_filling_rows)));
  out.push_back(Single("sirocco_plan_builds_total",
                       "Step plans built; stands still after start-up.", MetricType::Counter,
                       count(stats.plan_builds)));
  out.push_back(Single("sirocco_decode_allocations_total",
                       "Device allocations during decode steps; stays 0.", MetricType::Counter,
                       count(stats.decode_allocations)));
  out.push_back(Single("sirocco_graph_capture_seconds", "Time that capturing all graphs took.",
                       MetricType::Gauge, stats.capture_seconds));
  out.push_back(Single("sirocco_graph_pool_bytes", "Memory that all graphs hold.",
                       MetricType::Gauge,
                       count(stats.graph_pool_bytes) + count(stats.prefill_graph_bytes)));
  out.push_back(StartupSeconds(model, stats));
  out.push_back(MemoryBytes(*model.device));
  return out;
}

}  // namespace sirocco
