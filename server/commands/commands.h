// The commands of the program, a file each. Each Add function hangs its command under `app`; when
// that command was given, CLI11 calls it while parsing, and it leaves its exit status.
#pragma once

#include <CLI/CLI.hpp>

namespace sirocco {

void AddServe(CLI::App& app, int& exit_status);
void AddGenerate(CLI::App& app, int& exit_status);
void AddChat(CLI::App& app, int& exit_status);
void AddBench(CLI::App& app, int& exit_status);
void AddTokenize(CLI::App& app, int& exit_status);
void AddRun(CLI::App& app, int& exit_status);
void AddScore(CLI::App& app, int& exit_status);
void AddInfo(CLI::App& app, int& exit_status);
void AddCheckConfig(CLI::App& app, int& exit_status);

}  // namespace sirocco
