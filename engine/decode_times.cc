#include "engine/decode_times.h"

#include <algorithm>
#include <bit>

namespace sirocco {
namespace {

constexpr double kNewest = 0.25;  // share of the newest step

}  // namespace

size_t DecodeTimes::ClassOf(int32_t rows) {
  const auto n = static_cast<uint32_t>(std::max(rows, 1));
  if (n < 4) return n;
  const auto octave = static_cast<uint32_t>(std::bit_width(n)) - 3;  // 0: 4 to 7
  return std::min<size_t>(4 * octave + (n >> octave), kClasses - 1);
}

void DecodeTimes::Add(int32_t rows, double seconds, bool clear) {
  Point& point = points_[ClassOf(rows)];
  if (point.clear && !clear) return;
  if (point.rows == 0 || !point.clear) {
    point = {.rows = static_cast<double>(rows), .seconds = seconds, .clear = clear};
    return;
  }
  point.rows += kNewest * (rows - point.rows);
  point.seconds += kNewest * (seconds - point.seconds);
}

double DecodeTimes::Seconds(int32_t rows) const {
  const Point* below = nullptr;
  for (const Point& point : points_) {
    if (point.rows == 0) continue;
    if (point.rows >= rows) {
      if (below == nullptr) return point.seconds;
      const double part = (rows - below->rows) / (point.rows - below->rows);
      return below->seconds + part * (point.seconds - below->seconds);
    }
    below = &point;
  }
  return below == nullptr ? 0 : below->seconds;
}

double DecodeTimes::Ratio(int32_t from, int32_t to) const {
  if (from <= 0 || to <= 0) return 1;
  const double of_from = Seconds(from), of_to = Seconds(to);
  if (of_from <= 0) return 1;
  const double proportion = static_cast<double>(to) / from;
  return std::clamp(of_to / of_from, std::min(1.0, proportion), std::max(1.0, proportion));
}

}  // namespace sirocco
