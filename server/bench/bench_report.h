// A measurement as people and programs read it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "server/bench/engine_bench.h"

namespace sirocco {

// Tables of text: the whole, then stages where they were measured.
std::string BenchTables(const BenchReport& report);

// The same figures in SI units, and those that they are made of.
nlohmann::ordered_json BenchJson(const BenchReport& report);

// One HTML file that needs no other: the tables, and plots over the batch size.
std::string BenchPage(const BenchReport& report);

}  // namespace sirocco
