// The page of an engine's measurement.
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/bench/bench_report.h"
#include "server/bench/plot.h"

namespace sirocco {
namespace {

// A line a mode, over the batch size.
template <typename Value>
std::string PlotOf(const BenchReport& r, const char* title, const char* unit, Value value) {
  Plot plot;
  plot.title = title;
  plot.x_label = "batch size";
  plot.y_label = unit;
  plot.markers = true;
  for (const ModeReport& mode : r.modes) {
    PlotSeries series;
    series.name = std::string(NameOf(mode.mode));
    for (const Measurement& m : mode.batches) series.points.emplace_back(m.batch, value(m));
    plot.series.push_back(std::move(series));
  }
  return Svg(plot);
}

}  // namespace

std::string BenchPage(const BenchReport& r) {
  const std::string plots = absl::StrCat(
      PlotOf(r, "Decode", "tokens/s",
             [](const Measurement& m) { return m.DecodeTokensPerSecond(); }),
      PlotOf(r, "A decode step", "us", [](const Measurement& m) { return m.StepSeconds() * 1e6; }),
      PlotOf(r, "Share of the memory stream", "%",
             [&](const Measurement& m) { return 100 * m.BytesPerSecond() / r.stream; }),
      PlotOf(r, "Prefill", "tokens/s",
             [](const Measurement& m) { return m.PrefillTokensPerSecond(); }));
  return HtmlPage(absl::StrCat("sirocco bench --engine: ", r.model),
                  absl::StrCat("<pre>", EscapeHtml(BenchTables(r)),
                               "</pre>\n<div class=\"plots\">\n", plots, "</div>\n"));
}

}  // namespace sirocco
