// The page: a table and plots, drawn here.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/bench/load/load_report.h"
#include "server/bench/plot.h"

namespace sirocco {
namespace {

constexpr char kNotes[] =
    "Latencies count from the time a request was meant to be sent at, so that what waited for the "
    "client or the server is not hidden. Late: how long after it the client sent. Percentiles are "
    "of requests that were answered in full (nearest rank, rounded up by less than 0.4%). In "
    "timelines what is outside of the measured window is shaded.";

// A percentile's place on an axis that stretches the tail: 90% at 1, 99% at 2, 99.9% at 3.
double Stretched(double part) { return -std::log10(1 - part); }

std::vector<std::pair<double, std::string>> PercentTicks() {
  std::vector<std::pair<double, std::string>> ticks;
  for (const auto& [part, name] :
       {std::pair{0.0, "0%"}, std::pair{0.5, "50%"}, std::pair{0.9, "90%"}, std::pair{0.99, "99%"},
        std::pair{0.999, "99.9%"}, std::pair{0.9999, "99.99%"}}) {
    ticks.emplace_back(Stretched(part), name);
  }
  return ticks;
}

Plot ThroughputPlot(const LoadReport& r, const char* title, LoadMetric metric) {
  Plot plot;
  plot.title = absl::StrCat("Throughput against ", title);
  plot.x_label = "generated tokens/s";
  plot.y_label = "ms";
  plot.logarithmic_y = true;
  plot.markers = true;
  // A search does not measure in the order of its rates.
  std::vector<const LoadLevel*> levels;
  for (const LoadLevel& level : r.levels) levels.push_back(&level);
  std::sort(levels.begin(), levels.end(), [](const LoadLevel* a, const LoadLevel* b) {
    return std::pair(a->load.rate, a->load.concurrency) <
           std::pair(b->load.rate, b->load.concurrency);
  });
  for (const auto& [name, part] :
       {std::pair{"p50", 0.5}, std::pair{"p90", 0.9}, std::pair{"p99", 0.99}}) {
    PlotSeries series;
    series.name = name;
    for (const LoadLevel* level : levels) {
      series.points.emplace_back(level->TokensPerSecond(),
                                 level->Of(metric).Percentile(part) * 1e3);
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

Plot PercentilePlot(const LoadReport& r, const char* title, LoadMetric metric) {
  constexpr double kStep = 0.05;
  constexpr double kMost = 4;
  Plot plot;
  plot.title = absl::StrCat("Percentiles of ", title);
  plot.x_label = "of all samples";
  plot.y_label = "ms";
  plot.logarithmic_y = true;
  plot.x_ticks = PercentTicks();
  for (const LoadLevel& level : r.levels) {
    const Histogram& samples = level.Of(metric);
    PlotSeries series;
    series.name = LoadName(level.load);
    // Beyond it there is only the worst sample.
    const double last = std::min(kMost, std::log10(std::max<double>(samples.count(), 1)));
    for (int i = 0; samples.count() > 0 && i * kStep <= last + 1e-9; ++i) {
      const double part = 1 - std::pow(10, -i * kStep);
      series.points.emplace_back(i * kStep, samples.Percentile(part) * 1e3);
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

Plot TimePlot(const LoadLevel& level, const char* title, const char* unit,
              const std::vector<double>& values) {
  Plot plot;
  plot.title = absl::StrCat(LoadName(level.load), ": ", title);
  plot.x_label = "s";
  plot.y_label = unit;
  plot.x_window = {level.begin, level.begin + level.seconds};
  PlotSeries series;
  series.name = title;
  for (size_t bin = 0; bin < values.size(); ++bin) {
    series.points.emplace_back((static_cast<double>(bin) + 0.5) * level.timeline.bin_seconds(),
                               values[bin]);
  }
  plot.series.push_back(std::move(series));
  return plot;
}

std::string Timelines(const LoadLevel& level) {
  const Timeline& timeline = level.timeline;
  std::vector<double> tokens, under_way, worst;
  double now = 0;
  for (size_t bin = 0; bin < timeline.bins(); ++bin) {
    tokens.push_back(timeline.At(Timeline::kTokens, bin) / timeline.bin_seconds());
    now += timeline.At(Timeline::kArrivals, bin) - timeline.At(Timeline::kEnds, bin);
    under_way.push_back(now);
    const double longest = timeline.At(Timeline::kWorstFirstToken, bin);
    worst.push_back(longest > 0 ? longest * 1e3 : std::nan(""));  // no request, no point
  }
  return absl::StrCat(Svg(TimePlot(level, "tokens", "tokens/s", tokens)),
                      Svg(TimePlot(level, "under way", "requests", under_way)),
                      Svg(TimePlot(level, "worst first token", "ms, by the time meant", worst)));
}

std::string Cells(const Histogram& samples) {
  std::string out;
  for (const double part : {0.5, 0.9, 0.99}) {
    absl::StrAppend(&out, "<td>", Milliseconds(samples, part), "</td>");
  }
  return out;
}

std::string Table(const LoadReport& r) {
  std::string out =
      "<table>\n<tr><th rowspan=\"2\">load</th><th rowspan=\"2\">requests</th>"
      "<th rowspan=\"2\">failed</th><th rowspan=\"2\">req/s</th><th rowspan=\"2\">tok/s</th>"
      "<th colspan=\"3\">first token, ms</th><th colspan=\"3\">token to token, ms</th>"
      "<th colspan=\"3\">whole answer, ms</th><th>late, ms</th></tr>\n<tr>";
  for (int i = 0; i < 3; ++i) out += "<th>p50</th><th>p90</th><th>p99</th>";
  out += "<th>p99</th></tr>\n";
  for (const LoadLevel& level : r.levels) {
    absl::StrAppendFormat(
        &out,
        "<tr><td>%s</td><td>%d</td><td>%d</td><td>%.2f</td><td>%.1f</td>%s%s%s<td>%s</td></tr>\n",
        LoadName(level.load), level.requests, level.Failed(), level.RequestsPerSecond(),
        level.TokensPerSecond(), Cells(level.first_token), Cells(level.between_tokens),
        Cells(level.total), Milliseconds(level.late, 0.99));
  }
  return out + "</table>\n";
}

}  // namespace

std::string LoadPage(const LoadReport& r) {
  const LoadOptions& o = r.options;
  std::string out;
  absl::StrAppend(
      &out, "<p>",
      EscapeHtml(absl::StrCat(r.address, ": ", r.backend, ", ", r.device, ", mode ", r.mode, ", ",
                              r.dtype)),
      "<br>",
      EscapeHtml(absl::StrCat("prompts of ", o.prompts.text(), " tokens, outputs of ",
                              o.outputs.text(), ", ", o.connections, " connections, ",
                              o.loads.front().open() ? "open" : "closed", " loop, seed ", o.seed)),
      "</p>\n");
  if (const std::string found = SearchResult(r); !found.empty()) {
    absl::StrAppend(&out, "<p class=\"found\">", EscapeHtml(found), "</p>\n");
  }
  absl::StrAppend(&out, Table(r), "<p>", kNotes,
                  "</p>\n<h2>All levels</h2>\n<div class=\"plots\">\n");
  for (const auto& [title, metric] :
       {std::pair{"the first token's time (TTFT)", LoadMetric::kFirstToken},
        std::pair{"the time from token to token (ITL)", LoadMetric::kBetweenTokens}}) {
    absl::StrAppend(&out, Svg(ThroughputPlot(r, title, metric)),
                    Svg(PercentilePlot(r, title, metric)));
  }
  out += "</div>\n";
  for (const LoadLevel& level : r.levels) {
    absl::StrAppend(&out, "<h2>", EscapeHtml(LoadName(level.load)),
                    "</h2>\n<div class=\"plots\">\n", Timelines(level), "</div>\n");
  }
  return HtmlPage(absl::StrCat("sirocco bench: ", r.model), out);
}

}  // namespace sirocco
