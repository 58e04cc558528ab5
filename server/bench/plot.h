// Line plots as SVG, and the page that carries their style: no script, nothing fetched.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sirocco {

struct PlotSeries {
  std::string name;  // in the legend
  // In their order. What an axis cannot show (not finite; on a logarithmic one not above 0) is left
  // out.
  std::vector<std::pair<double, double>> points;
};

struct Plot {
  std::string title;
  std::string x_label, y_label;
  bool logarithmic_y = false;
  bool markers = false;  // at every point, with its values when pointed at
  std::vector<std::pair<double, std::string>> x_ticks;  // empty: round numbers
  // What is outside is shaded, where the second is above the first.
  std::pair<double, double> x_window = {0, 0};
  std::vector<PlotSeries> series;
};

// A linear axis begins at 0 where no value is below it. A plot without a point says so.
std::string Svg(const Plot& plot);

std::string EscapeHtml(std::string_view text);

// A whole page around `body`, which is HTML already; `title` is text.
std::string HtmlPage(const std::string& title, const std::string& body);

// Ticks at 1, 2 or 5 times a power of ten: about `count` of them from `low` to `high`.
std::vector<double> LinearTicks(double low, double high, int count);
// Powers of ten, and 2 and 5 times them where they are few.
std::vector<double> LogarithmicTicks(double low, double high);

}  // namespace sirocco
