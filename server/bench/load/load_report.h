// A server's load as people and programs read it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "server/bench/load/histogram.h"
#include "server/bench/load/load_bench.h"

namespace sirocco {

std::string LoadTable(const LoadReport& report);
nlohmann::ordered_json LoadJson(const LoadReport& report);

// One HTML file that needs no other: table, throughput against latency, percentiles, timelines.
std::string LoadPage(const LoadReport& report);

// What a search found, in a sentence; empty where there was none.
std::string SearchResult(const LoadReport& report);
std::string Milliseconds(double seconds);
// A percentile of samples; "-" where there are none.
std::string Milliseconds(const Histogram& samples, double part);

}  // namespace sirocco
