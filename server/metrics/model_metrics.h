// Metrics that a model's device and executor count themselves, read when scraped.
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "server/model/served_model.h"

namespace sirocco {

// `model` is loaded and has its engine. Any thread.
std::vector<prometheus::MetricFamily> CollectModelMetrics(const ServedModel& model);

}  // namespace sirocco
