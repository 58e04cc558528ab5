#include "server/bench/plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sirocco {
namespace {

// The colours are Okabe's and Ito's (Color Universal Design, 2008), told apart by nearly everybody.
constexpr char kStyle[] = R"(
:root { color-scheme: light dark; }
body { font: 14px/1.5 sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2em 0.7em; text-align: right; border-bottom: 1px solid #8884; }
.plots { display: flex; flex-wrap: wrap; gap: 1em; }
.found { font-weight: bold; }
pre { overflow-x: auto; }
svg { max-width: 100%; height: auto; font: 12px sans-serif; }
svg text { fill: currentColor; }
svg .title { font-weight: bold; font-size: 13px; }
svg .grid { stroke: currentColor; stroke-opacity: 0.15; }
svg .axis { stroke: currentColor; stroke-opacity: 0.6; fill: none; }
svg .outside { fill: currentColor; fill-opacity: 0.08; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .c0 { stroke: #0072b2; } svg .m0 { fill: #0072b2; }
svg .c1 { stroke: #d55e00; } svg .m1 { fill: #d55e00; }
svg .c2 { stroke: #009e73; } svg .m2 { fill: #009e73; }
svg .c3 { stroke: #cc79a7; } svg .m3 { fill: #cc79a7; }
svg .c4 { stroke: #e69f00; } svg .m4 { fill: #e69f00; }
svg .c5 { stroke: #56b4e9; } svg .m5 { fill: #56b4e9; }
svg .c6 { stroke: #7f7f7f; } svg .m6 { fill: #7f7f7f; }
)";

constexpr size_t kColours = 7;
constexpr double kWidth = 560, kHeight = 300;
constexpr double kLeft = 64, kRight = 16, kTop = 28, kBottom = 44;
constexpr double kLegendLine = 16;

// Values <-> places on one axis of the picture.
struct Axis {
  double low = 0, high = 1;
  double from = 0, to = 1;  // places
  bool logarithmic = false;

  bool Shows(double value) const { return std::isfinite(value) && (!logarithmic || value > 0); }
  double Place(double value) const {
    const double part =
        logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + part * (to - from);
  }
};

void Widen(Axis& axis) {
  if (axis.low > axis.high) {  // no value
    axis.low = axis.logarithmic ? 1 : 0;
    axis.high = 10;
  } else if (axis.logarithmic) {
    axis.low /= 1.2;
    axis.high *= 1.2;
  } else {
    axis.low = std::min(axis.low, 0.0);
    axis.high = axis.high > axis.low ? axis.high + 0.05 * (axis.high - axis.low) : axis.low + 1;
  }
}

class Picture {
 public:
  explicit Picture(const Plot& plot) : plot_(plot) {
    y_.logarithmic = plot.logarithmic_y;
    x_.from = kLeft;
    x_.to = kWidth - kRight;
    y_.from = kHeight - kBottom;
    y_.to = kTop;
    for (Axis* axis : {&x_, &y_}) {
      axis->low = std::numeric_limits<double>::infinity();
      axis->high = -axis->low;
    }
    for (const PlotSeries& series : plot.series) {
      for (const auto& [x, y] : series.points) {
        if (!x_.Shows(x) || !y_.Shows(y)) continue;
        empty_ = false;
        Include(x_, x);
        Include(y_, y);
      }
    }
    Widen(x_);
    Widen(y_);
  }

  std::string Draw() {
    const size_t legend = plot_.series.size() > 1 ? plot_.series.size() : 0;
    absl::StrAppendFormat(&out_, "<svg viewBox=\"0 0 %g %g\" width=\"%g\" role=\"img\">\n", kWidth,
                          kHeight + kLegendLine * static_cast<double>((legend + 2) / 3), kWidth);
    absl::StrAppendFormat(&out_, "<title>%s</title>\n", EscapeHtml(plot_.title));
    Text(kLeft, 16, "class=\"title\"", plot_.title);
    DrawWindow();
    DrawAxes();
    for (size_t i = 0; i < plot_.series.size(); ++i) DrawSeries(i);
    if (legend > 0) DrawLegend();
    if (empty_) Text((x_.from + x_.to) / 2, (y_.from + y_.to) / 2, kMiddle, "no samples");
    out_ += "</svg>\n";
    return std::move(out_);
  }

 private:
  static constexpr char kMiddle[] = "text-anchor=\"middle\"";

  static void Include(Axis& axis, double value) {
    axis.low = std::min(axis.low, value);
    axis.high = std::max(axis.high, value);
  }

  void Text(double x, double y, const char* attributes, const std::string& text) {
    absl::StrAppendFormat(&out_, "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, attributes,
                          EscapeHtml(text));
  }

  void Shade(double from, double to) {
    if (to <= from) return;
    absl::StrAppendFormat(
        &out_, "<rect class=\"outside\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
        from, y_.to, to - from, y_.from - y_.to);
  }

  void DrawWindow() {
    const auto& [begin, end] = plot_.x_window;
    if (end <= begin) return;
    Shade(x_.from, std::clamp(x_.Place(begin), x_.from, x_.to));
    Shade(std::clamp(x_.Place(end), x_.from, x_.to), x_.to);
  }

  void DrawAxes() {
    std::vector<double> y_ticks;
    if (y_.logarithmic) y_ticks = LogarithmicTicks(y_.low, y_.high);
    // Between two round numbers a logarithmic axis has none.
    if (y_ticks.size() < 2) y_ticks = LinearTicks(y_.low, y_.high, 5);
    for (const double tick : y_ticks) {
      const double at = y_.Place(tick);
      absl::StrAppendFormat(&out_, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", x_.from, at,
                            x_.to);
      Text(x_.from - 6, at + 4, "text-anchor=\"end\"", absl::StrFormat("%.6g", tick));
    }
    std::vector<std::pair<double, std::string>> x_ticks = plot_.x_ticks;
    if (x_ticks.empty()) {
      for (const double tick : LinearTicks(x_.low, x_.high, 8)) {
        x_ticks.emplace_back(tick, absl::StrFormat("%.6g", tick));
      }
    }
    for (const auto& [tick, name] : x_ticks) {
      if (tick < x_.low || tick > x_.high) continue;
      const double at = x_.Place(tick);
      absl::StrAppendFormat(&out_, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>\n", at, y_.from,
                            y_.to);
      Text(at, y_.from + 16, kMiddle, name);
    }
    absl::StrAppendFormat(&out_, "<path class=\"axis\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", x_.from,
                          y_.to, y_.from, x_.to);
    Text((x_.from + x_.to) / 2, y_.from + 34, kMiddle, plot_.x_label);
    const double middle = (y_.from + y_.to) / 2;
    Text(
        14, middle,
        absl::StrFormat("text-anchor=\"middle\" transform=\"rotate(-90 14 %.1f)\"", middle).c_str(),
        plot_.y_label);
  }

  void DrawSeries(size_t i) {
    const PlotSeries& series = plot_.series[i];
    std::string line, markers;
    for (const auto& [x, y] : series.points) {
      if (!x_.Shows(x) || !y_.Shows(y)) continue;
      const double px = x_.Place(x), py = y_.Place(y);
      absl::StrAppendFormat(&line, "%c%.1f %.1f", line.empty() ? 'M' : 'L', px, py);
      if (!plot_.markers) continue;
      absl::StrAppendFormat(
          &markers,
          "<circle class=\"m%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>%s</title></circle>\n",
          i % kColours, px, py, EscapeHtml(absl::StrFormat("%s: %.4g, %.4g", series.name, x, y)));
    }
    if (line.empty()) return;
    absl::StrAppendFormat(&out_, "<path class=\"line c%d\"%s d=\"%s\"/>\n", i % kColours, Dashes(i),
                          line);
    out_ += markers;
  }

  void DrawLegend() {
    for (size_t i = 0; i < plot_.series.size(); ++i) {
      const double x = kLeft + static_cast<double>(i % 3) * (kWidth - kLeft) / 3;
      const double y = kHeight + kLegendLine * static_cast<double>(i / 3) + 8;
      absl::StrAppendFormat(&out_, "<path class=\"line c%d\"%s d=\"M%.1f %.1fh20\"/>\n",
                            i % kColours, Dashes(i), x, y - 4);
      Text(x + 26, y, "", plot_.series[i].name);
    }
  }

  // Colours come again in dashes.
  static const char* Dashes(size_t i) {
    return i / kColours % 2 == 0 ? "" : " stroke-dasharray=\"5 3\"";
  }

  const Plot& plot_;
  Axis x_, y_;
  bool empty_ = true;
  std::string out_;
};

}  // namespace

std::string Svg(const Plot& plot) { return Picture(plot).Draw(); }

std::string HtmlPage(const std::string& title, const std::string& body) {
  const std::string heading = EscapeHtml(title);
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>", heading,
      "</title>\n<style>", kStyle, "</style>\n</head>\n<body>\n<h1>", heading, "</h1>\n", body,
      "</body>\n</html>\n");
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::vector<double> LinearTicks(double low, double high, int count) {
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double times : {5, 2, 1}) {
    if (times * power >= rough * (1 - 1e-9)) step = times * power;
  }
  std::vector<double> ticks;
  const double last = std::floor(high / step + 1e-9);
  for (double i = std::ceil(low / step - 1e-9); i <= last; ++i) {
    ticks.push_back(i * step + 0.0);  // not -0
  }
  return ticks;
}

std::vector<double> LogarithmicTicks(double low, double high) {
  constexpr double kFewDecades = 3;
  const double decades = std::log10(high / low);
  std::vector<double> ticks;
  for (double exponent = std::floor(std::log10(low)); exponent <= std::log10(high); ++exponent) {
    for (const double times : {1, 2, 5}) {
      if (times > 1 && decades > kFewDecades) break;
      const double tick = times * std::pow(10, exponent);
      if (tick >= low && tick <= high) ticks.push_back(tick);
    }
  }
  return ticks;
}

}  // namespace sirocco
