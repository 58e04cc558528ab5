#include "tests/engine/fake_executor.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "tests/engine/fake_model.h"

namespace sirocco {

void FakeDevice::Violate(const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (violation_.empty()) violation_ = what;
}

std::string FakeDevice::violation() const {
  const std::lock_guard lock(mutex_);
  return violation_;
}

ExecutorOptions FakeOptions(int32_t max_batch_size, int32_t max_length, int32_t blocks) {
  ExecutorOptions options;
  options.max_batch_size = max_batch_size;
  options.max_length = max_length;
  options.prefill_chunk_size = 32;
  options.block_size = 4;
  options.kv_blocks = {blocks, blocks};
  return options;
}

FakeExecutor::FakeExecutor(ExecutorOptions options, std::vector<LayerGroup> groups, int run_ahead,
                           std::shared_ptr<FakeDevice> device)
    : options_(std::move(options)),
      groups_(std::move(groups)),
      run_ahead_(run_ahead),
      device_(std::move(device)) {
  groups_.resize(options_.kv_blocks.size());
  lanes_.resize(options_.max_batch_size);
  for (int32_t count : options_.kv_blocks) {
    slots_.emplace_back(static_cast<size_t>(count) * options_.block_size, 0);
  }
}

void FakeExecutor::Expect(bool condition, const std::string& what) {
  if (!condition) device_->Violate(what);
}

void FakeExecutor::OnThread() {
  if (thread_ == std::thread::id()) thread_ = std::this_thread::get_id();
  Expect(thread_ == std::this_thread::get_id(), "another thread");
}

bool FakeExecutor::InFlight(int64_t life) const {
  return std::any_of(launched_.begin(), launched_.end(), [&](const Launched& launched) {
    return std::count(launched.lives.begin(), launched.lives.end(), life) > 0;
  });
}

absl::Status FakeExecutor::Launch(const Step& step) {
  OnThread();
  if (device_->before_step) device_->before_step();
  if (device_->fails.load()) return absl::UnknownError("the fake device broke");
  Expect(in_flight() <= run_ahead_, "too many steps in flight");
  Expect(!step.prefill.chunks.empty() || !step.decode.lanes.empty(), "an empty step");
  Launched& launched = launched_.emplace_back();
  launched.step = step;
  const auto copy = [](const auto& view) { return std::vector(view.begin(), view.end()); };
  launched.prefill_updates = copy(step.prefill.block_updates);
  launched.decode_updates = copy(step.decode.block_updates);
  launched.copies = copy(step.decode.block_copies);
  launched.chunks.assign(step.prefill.chunks.begin(), step.prefill.chunks.end());
  launched.lanes.assign(step.decode.lanes.begin(), step.decode.lanes.end());
  std::set<int32_t> seen;
  const auto name = [&](int32_t lane) {
    Expect(seen.insert(lane).second, "a lane twice in a step");
    launched.lives.push_back(lanes_.at(lane).life);
  };
  for (const PrefillChunk& chunk : step.prefill.chunks) name(chunk.lane);
  for (const int32_t lane : step.decode.lanes) name(lane);
  device_->most_in_flight = std::max(device_->most_in_flight.load(), in_flight());
  return absl::OkStatus();
}

void FakeExecutor::CheckViews(const Launched& launched) {
  const auto same = [](const auto& view, const auto& copy) {
    return view.size() == copy.size() &&
           (view.empty() || std::memcmp(view.data(), copy.data(), view.size_bytes()) == 0);
  };
  Expect(same(launched.step.prefill.block_updates, launched.prefill_updates) &&
             same(launched.step.decode.block_updates, launched.decode_updates) &&
             same(launched.step.decode.lanes, launched.lanes) &&
             same(launched.step.decode.block_copies, launched.copies) &&
             std::equal(launched.chunks.begin(), launched.chunks.end(),
                        launched.step.prefill.chunks.begin(), launched.step.prefill.chunks.end(),
                        [](const PrefillChunk& a, const PrefillChunk& b) {
                          return a.lane == b.lane && a.first_position == b.first_position &&
                                 a.count == b.count;
                        }),
         "a launched step was changed");
}

absl::StatusOr<StepResult> FakeExecutor::Collect() {
  OnThread();
  if (device_->breaks.load()) return absl::UnknownError("the fake device broke");
  if (launched_.empty()) {
    device_->Violate("nothing to collect");
    return absl::FailedPreconditionError("nothing to collect");
  }
  prefilled_.clear();
  decoded_.clear();
  scored_.clear();
  CheckViews(launched_.front());
  const Step step = launched_.front().step;
  if (!step.prefill.chunks.empty()) RunPrefill(step.prefill);
  if (!step.decode.lanes.empty()) RunDecode(step.decode);
  launched_.pop_front();
  return StepResult{.prefill = {.sampled = prefilled_, .scored = scored_},
                    .decode = {.sampled = decoded_}};
}

absl::Status FakeExecutor::StartLane(const LaneStart& start) {
  Expect(start.lane >= 0 && start.lane < options_.max_batch_size, "lane out of range");
  Expect(start.state.length == static_cast<int32_t>(start.tokens.size()), "length of a start");
  Expect(start.prompt_length > 0 && start.prompt_length <= start.state.length,
         "prompt length of a start");
  LaneState& lane = lanes_.at(start.lane);
  Expect(!InFlight(lane.life), "a lane that a launched step uses is started");
  lane.life = ++lives_;
  lane.state = start.state;
  lane.tokens.assign(start.tokens.begin(), start.tokens.end());
  lane.barred_ids.assign(start.barred_ids.begin(), start.barred_ids.end());
  lane.computed = 0;
  lane.begun = false;
  const size_t most = (options_.max_length + options_.block_size - 1) / options_.block_size;
  lane.table.assign(slots_.size(), std::vector<int32_t>(most, -1));
  return absl::OkStatus();
}

absl::Status FakeExecutor::ForkLane(const LaneFork& fork) {
  LaneState& lane = lanes_.at(fork.lane);
  const LaneState& parent = lanes_.at(fork.parent);
  Expect(lane.life > 0 && parent.life > 0, "a fork of lanes that were not started");
  Expect(!InFlight(lane.life) && !InFlight(parent.life),
         "a lane that a launched step uses is forked");
  if (fork.lane != fork.parent) {
    lane.tokens = parent.tokens;
    lane.computed = parent.computed;
    lane.begun = parent.begun;
    lane.table = parent.table;
    ++device_->forks;
  }
  lane.tokens.back() = fork.token;
  return absl::OkStatus();
}

void FakeExecutor::CopyBlocks(std::span<const BlockCopy> copies) {
  for (const BlockCopy& copy : copies) {
    std::vector<uint64_t>& slots = slots_.at(copy.group);
    Expect(copy.from != copy.to && std::max(copy.from, copy.to) < options_.kv_blocks.at(copy.group),
           "a block copy");
    for (int32_t slot = 0; slot < options_.block_size; ++slot) {
      slots.at(copy.to * options_.block_size + slot) =
          slots.at(copy.from * options_.block_size + slot);
    }
    ++device_->block_copies;
  }
}

void FakeExecutor::ApplyUpdates(std::span<const BlockUpdate> updates,
                                std::span<const BlockCopy> copies) {
  for (const BlockUpdate& update : updates) {
    Expect(update.physical >= 0 && update.physical < options_.kv_blocks.at(update.group),
           "a block out of range");
    LaneState& lane = lanes_.at(update.lane);
    int32_t& entry = lane.table.at(update.group).at(update.logical);
    // A copy takes the place of the block that it was made of.
    const auto replaces = [&](const BlockCopy& copy) {
      return copy.group == update.group && copy.from == entry && copy.to == update.physical;
    };
    Expect(entry == -1 || std::any_of(copies.begin(), copies.end(), replaces),
           "a table entry is set twice");
    entry = update.physical;
  }
}

void FakeExecutor::Write(LaneState& lane, int32_t position) {
  const uint64_t value = FakeHashes(std::span(lane.tokens).first(position + 1)).back();
  for (size_t group = 0; group < slots_.size(); ++group) {
    const int32_t physical = lane.table[group].at(position / options_.block_size);
    if (physical < 0) return device_->Violate("a position without a block");
    slots_[group][physical * options_.block_size + position % options_.block_size] = value;
  }
}

std::span<const int32_t> FakeExecutor::Attend(const LaneState& lane, int32_t end) {
  const std::vector<uint64_t> expected = FakeHashes(std::span(lane.tokens).first(end));
  for (size_t group = 0; group < slots_.size(); ++group) {
    const int32_t window = groups_[group].window;
    for (int32_t at = window > 0 ? std::max(0, end - window) : 0; at < end; ++at) {
      const int32_t physical = lane.table[group].at(at / options_.block_size);
      Expect(physical >= 0, "reads a position without a block");
      if (physical < 0) continue;
      Expect(
          slots_[group][physical * options_.block_size + at % options_.block_size] == expected[at],
          "KV of other tokens");
    }
  }
  return std::span(lane.tokens).first(end);
}

void FakeExecutor::RunPrefill(const PrefillStep& step) {
  ApplyUpdates(step.block_updates);
  int32_t total = 0;
  for (const PrefillChunk& chunk : step.chunks) {
    LaneState& lane = lanes_.at(chunk.lane);
    const int32_t end = chunk.first_position + chunk.count;
    // The first may begin behind what others have computed.
    Expect(chunk.count > 0 && (!lane.begun || chunk.first_position == lane.computed),
           "a chunk out of order");
    Expect(end <= static_cast<int32_t>(lane.tokens.size()), "a chunk beyond the prompt");
    Expect(chunk.score_count >= 0 && chunk.score_count <= chunk.count, "score_count");
    total += chunk.count;
    for (int32_t position = chunk.first_position; position < end; ++position) Write(lane, position);
    lane.computed = end;
    lane.begun = true;
  }
  // All is written before anything is read.
  for (const PrefillChunk& chunk : step.chunks) {
    LaneState& lane = lanes_.at(chunk.lane);
    const int32_t end = chunk.first_position + chunk.count;
    for (int32_t i = 0; i < chunk.score_count; ++i) {
      const int32_t position = chunk.first_position + i;
      scored_.push_back(
          FakeScore(chunk.score_top, Attend(lane, position + 1), lane.tokens.at(position + 1)));
    }
    Attend(lane, end);
    if (!chunk.sample) continue;
    Expect(end == static_cast<int32_t>(lane.tokens.size()), "samples before the prompt's end");
    prefilled_.push_back(FakeNext(lane.state, lane.barred_ids, Attend(lane, end)));
    lane.tokens.push_back(prefilled_.back().token_id);
  }
  Expect(total <= options_.prefill_chunk_size, "a prefill that is too long");
  device_->prefill_tokens += total;
  device_->largest_prefill = std::max(device_->largest_prefill.load(), total);
}

void FakeExecutor::RunDecode(const DecodeStep& step) {
  CopyBlocks(step.block_copies);
  ApplyUpdates(step.block_updates, step.block_copies);
  const auto rows = static_cast<int32_t>(step.lanes.size());
  Expect(rows >= 1 && rows <= options_.max_batch_size, "rows of a decode");
  for (int32_t number : step.lanes) {
    LaneState& lane = lanes_.at(number);
    const auto length = static_cast<int32_t>(lane.tokens.size());
    Expect(lane.computed == length - 1, "decodes a lane without its prompt");
    Expect(length < options_.max_length, "decodes beyond max_length");
    Write(lane, length - 1);
    lane.computed = length;
    decoded_.push_back(FakeNext(lane.state, lane.barred_ids, Attend(lane, length)));
    lane.tokens.push_back(decoded_.back().token_id);
  }
  device_->decode_rows += rows;
  device_->largest_batch = std::max(device_->largest_batch.load(), rows);
}

}  // namespace sirocco
