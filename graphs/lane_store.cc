#include "graphs/lane_store.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "graphs/carver.h"
#include "graphs/prefill_sizes.h"

namespace sirocco {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

uint64_t Place(const ModelDescriptor& descriptor, const ExecutorOptions& options, void* memory,
               Lanes& lanes) {
  lanes.max_lanes = LanesOnDevice(options);
  lanes.max_length = options.max_length;
  lanes.groups = static_cast<int32_t>(descriptor.groups.size());
  lanes.max_blocks = static_cast<int32_t>((int64_t{options.max_length} + options.block_size - 1) /
                                          options.block_size);
  lanes.vocab_size = descriptor.vocab_size;
  const int64_t count = lanes.max_lanes;
  Carver carver(memory);
  lanes.lane = carver.Take<Lane>(count);
  lanes.history = carver.Take<int32_t>(count * lanes.max_length);
  lanes.block_table = carver.Take<int32_t>(count * lanes.groups * lanes.max_blocks);
  lanes.counts = carver.Take<uint32_t>(count * lanes.vocab_size);
  lanes.token_flags = carver.Take<uint8_t>(count * lanes.vocab_size);
  lanes.bias = carver.Take<float>(count * lanes.vocab_size);
  return carver.bytes();
}

absl::Status OutOfRange(const char* what, int64_t value, int64_t low, int64_t high) {
  return absl::InvalidArgumentError(
      absl::StrCat("lane start: ", what, " is ", value, "; allowed are ", low, " to ", high));
}

absl::Status CheckIds(const char* what, std::span<const int32_t> ids, int32_t vocab_size) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) return OutOfRange(what, id, 0, vocab_size - 1);
  }
  return absl::OkStatus();
}

// One start's arrays in host memory; those of the vocabulary's length only where flags ask.
struct Staged {
  Lane* state = nullptr;
  int32_t* tokens = nullptr;
  float* bias = nullptr;
  uint8_t* token_flags = nullptr;
  uint32_t* counts = nullptr;
};

uint64_t PlaceStart(int64_t tokens, uint32_t flags, int64_t vocab, void* memory, Staged& staged) {
  Carver carver(memory);
  staged.state = carver.Take<Lane>(1);
  staged.tokens = carver.Take<int32_t>(tokens);
  if ((flags & kLaneBias) != 0) staged.bias = carver.Take<float>(vocab);
  if ((flags & (kLanePenalties | kLaneBarred)) != 0) {
    staged.token_flags = carver.Take<uint8_t>(vocab);
  }
  if ((flags & kLanePenalties) != 0) staged.counts = carver.Take<uint32_t>(vocab);
  return carver.bytes();
}

void FillBias(const LaneStart& start, std::span<float> bias) {
  std::fill(bias.begin(), bias.end(), start.allowed_ids.empty() ? 0.0f : kNever);
  for (const int32_t id : start.allowed_ids) bias[id] = 0;
  for (const auto& [id, value] : start.logit_bias) bias[id] += value;
  for (const int32_t id : start.banned_ids) bias[id] = kNever;
}

void FillTokenFlags(const LaneStart& start, std::span<uint8_t> flags) {
  std::fill(flags.begin(), flags.end(), 0);
  for (const int32_t id : start.tokens.first(start.prompt_length)) flags[id] |= kTokenInPrompt;
  for (const int32_t id : start.barred_ids) flags[id] |= kTokenBarred;
}

void FillCounts(const LaneStart& start, std::span<uint32_t> counts) {
  std::fill(counts.begin(), counts.end(), 0);
  for (const int32_t id : start.tokens.subspan(start.prompt_length)) ++counts[id];
}

void Fill(const LaneStart& start, size_t vocab, const Staged& staged) {
  *staged.state = start.state;
  std::copy(start.tokens.begin(), start.tokens.end(), staged.tokens);
  if (staged.bias != nullptr) FillBias(start, {staged.bias, vocab});
  if (staged.token_flags != nullptr) FillTokenFlags(start, {staged.token_flags, vocab});
  if (staged.counts != nullptr) FillCounts(start, {staged.counts, vocab});
}

}  // namespace

uint64_t LaneStore::Bytes(const ModelDescriptor& descriptor, const ExecutorOptions& options) {
  Lanes lanes;
  return Place(descriptor, options, nullptr, lanes);
}

absl::StatusOr<LaneStore> LaneStore::Create(Device& device, const ModelDescriptor& descriptor,
                                            const ExecutorOptions& options) {
  absl::StatusOr<std::unique_ptr<Buffer>> memory =
      device.Allocate(Bytes(descriptor, options), MemoryUse::kLanes);
  if (!memory.ok()) return memory.status();
  LaneStore store;
  store.memory_ = *std::move(memory);
  Place(descriptor, options, store.memory_->data(), store.lanes_);
  store.lengths_.assign(options.max_batch_size, 0);
  store.flags_.assign(options.max_batch_size, 0);
  Staged staged;
  const uint64_t largest = PlaceStart(options.max_length, kLaneBias | kLanePenalties,
                                      descriptor.vocab_size, nullptr, staged);
  absl::StatusOr<LaneStaging> staging = LaneStaging::Create(device, largest, StepsInFlight(device));
  if (!staging.ok()) return staging.status();
  store.staging_ = *std::move(staging);
  if (store.lanes_.max_lanes > options.max_batch_size) {
    if (absl::Status status = store.SetFillingLane(device, options); !status.ok()) return status;
  }
  return store;
}

absl::Status LaneStore::SetFillingLane(Device& device, const ExecutorOptions& options) const {
  std::vector<int32_t> table(int64_t{lanes_.groups} * lanes_.max_blocks, 0);
  for (int32_t g = 0; g < lanes_.groups; ++g) {
    int32_t* const of_group = table.data() + int64_t{g} * lanes_.max_blocks;
    std::iota(of_group, of_group + FillingBlocks(options), options.kv_blocks[g]);
  }
  const int64_t entries = static_cast<int64_t>(table.size());
  absl::Status status = device.CopyToDevice(lanes_.block_table + options.max_batch_size * entries,
                                            table.data(), table.size() * sizeof(int32_t));
  return status.ok() ? device.Synchronize() : status;  // before `table` goes
}

absl::Status LaneStore::Check(const LaneStart& start) const {
  const int64_t tokens = static_cast<int64_t>(start.tokens.size());
  if (start.lane < 0 || start.lane >= sequence_lanes()) {
    return OutOfRange("lane", start.lane, 0, sequence_lanes() - 1);
  }
  if (tokens < 1 || tokens > lanes_.max_length) {
    return OutOfRange("the number of tokens", tokens, 1, lanes_.max_length);
  }
  if (start.state.length != tokens) {
    return OutOfRange("length", start.state.length, tokens, tokens);
  }
  if (start.prompt_length < 0 || start.prompt_length > tokens) {
    return OutOfRange("prompt length", start.prompt_length, 0, tokens);
  }
  if (start.state.top_logprobs < 0 || start.state.top_logprobs > kMaxTopLogprobs) {
    return OutOfRange("top_logprobs", start.state.top_logprobs, 0, kMaxTopLogprobs);
  }
  for (const auto& [id, bias] : start.logit_bias) {
    if (absl::Status s = CheckIds("a biased id", {&id, 1}, lanes_.vocab_size); !s.ok()) return s;
  }
  for (const auto& [what, ids] :
       {std::pair{"a token", start.tokens}, std::pair{"an allowed id", start.allowed_ids},
        std::pair{"a banned id", start.banned_ids}, std::pair{"a barred id", start.barred_ids}}) {
    if (absl::Status s = CheckIds(what, ids, lanes_.vocab_size); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status LaneStore::Start(Device& device, const LaneStart& start) {
  if (absl::Status status = Check(start); !status.ok()) return status;
  const int64_t lane = start.lane;
  const int64_t vocab = lanes_.vocab_size;
  const int64_t tokens = start.state.length;
  const uint32_t flags = start.state.flags;
  Staged staged;
  absl::StatusOr<std::byte*> memory =
      staging_.Take(device, PlaceStart(tokens, flags, vocab, nullptr, staged));
  if (!memory.ok()) return memory.status();
  PlaceStart(tokens, flags, vocab, *memory, staged);
  Fill(start, vocab, staged);

  absl::Status status = device.CopyToDevice(lanes_.lane + lane, staged.state, sizeof(Lane));
  if (status.ok()) {
    status = device.CopyToDevice(lanes_.history + lane * lanes_.max_length, staged.tokens,
                                 tokens * sizeof(int32_t));
  }
  if (status.ok() && staged.bias != nullptr) {
    status = device.CopyToDevice(lanes_.bias + lane * vocab, staged.bias, vocab * sizeof(float));
  }
  if (status.ok() && staged.token_flags != nullptr) {
    status = device.CopyToDevice(lanes_.token_flags + lane * vocab, staged.token_flags, vocab);
  }
  if (status.ok() && staged.counts != nullptr) {
    status =
        device.CopyToDevice(lanes_.counts + lane * vocab, staged.counts, vocab * sizeof(uint32_t));
  }
  if (status.ok()) {
    lengths_[lane] = start.state.length;
    flags_[lane] = flags;
  }
  return status;
}

absl::Status LaneStore::Check(const LaneFork& fork) const {
  for (const int32_t lane : {fork.lane, fork.parent}) {
    if (lane < 0 || lane >= sequence_lanes()) {
      return OutOfRange("a fork's lane", lane, 0, sequence_lanes() - 1);
    }
    if (lengths_[lane] == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("lane start: a fork names lane ", lane, ", which was never started"));
    }
  }
  if (KeepsCounts(fork.lane) != KeepsCounts(fork.parent)) {
    return absl::InvalidArgumentError(absl::StrCat("lane start: of lanes ", fork.lane, " and ",
                                                   fork.parent, ", a fork's, one keeps counts"));
  }
  return CheckIds("a fork's token", {&fork.token, 1}, lanes_.vocab_size);
}

absl::Status LaneStore::CopyLane(Device& device, int64_t lane, int64_t parent) const {
  absl::Status status =
      device.CopyOnDevice(&lanes_.lane[lane].length, &lanes_.lane[parent].length, sizeof(int32_t));
  if (status.ok()) {
    status = device.CopyOnDevice(lanes_.history + lane * lanes_.max_length,
                                 lanes_.history + parent * lanes_.max_length,
                                 lengths_[parent] * sizeof(int32_t));
  }
  if (status.ok()) {
    const int64_t entries = int64_t{lanes_.groups} * lanes_.max_blocks;
    status = device.CopyOnDevice(lanes_.block_table + lane * entries,
                                 lanes_.block_table + parent * entries, entries * sizeof(int32_t));
  }
  if (status.ok() && KeepsCounts(static_cast<int32_t>(lane))) {
    const int64_t vocab = lanes_.vocab_size;
    status = device.CopyOnDevice(lanes_.counts + lane * vocab, lanes_.counts + parent * vocab,
                                 vocab * sizeof(uint32_t));
  }
  return status;
}

absl::Status LaneStore::Fork(Device& device, const LaneFork& fork) {
  if (absl::Status status = Check(fork); !status.ok()) return status;
  if (fork.lane != fork.parent) {
    if (absl::Status status = CopyLane(device, fork.lane, fork.parent); !status.ok()) return status;
    lengths_[fork.lane] = lengths_[fork.parent];
  }
  struct Newest {
    int32_t token;
    uint32_t count;
  };
  Carver counted(nullptr);
  counted.Take<Newest>(1);
  const absl::StatusOr<std::byte*> memory = staging_.Take(device, counted.bytes());
  if (!memory.ok()) return memory.status();
  Newest* const newest = Carver(*memory).Take<Newest>(1);
  *newest = {fork.token, static_cast<uint32_t>(fork.count)};
  int32_t* const history = lanes_.history + int64_t{fork.lane} * lanes_.max_length;
  absl::Status status =
      device.CopyToDevice(history + lengths_[fork.lane] - 1, &newest->token, sizeof(int32_t));
  if (!status.ok() || !KeepsCounts(fork.lane)) return status;
  uint32_t* const counts = lanes_.counts + int64_t{fork.lane} * lanes_.vocab_size;
  return device.CopyToDevice(counts + fork.token, &newest->count, sizeof(uint32_t));
}

}  // namespace sirocco
