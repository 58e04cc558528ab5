#include "server/api/to_request.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/lanes.h"
#include "server/api/beam.h"
#include "server/api/errors.h"
#include "server/api/prompt.h"
#include "server/api/sampling.h"

namespace sirocco {
namespace {

absl::Status CheckModel(const v1::GenerateRequest& request, const ModelFacts& model) {
  if (request.model().empty() || request.model() == model.name) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("model: ", Quoted(request.model()), " is not served; allowed: ", model.name));
}

absl::Status CheckSupported(const v1::GenerateRequest& request) {
  if (!request.adapter().empty()) return UnsupportedField("adapter");
  if (request.has_constraint()) return UnsupportedField("constraint");
  return absl::OkStatus();
}

std::string DrawId() {
  thread_local std::random_device device;
  char text[40];
  std::snprintf(text, sizeof(text), "gen-%08x%08x%08x", device(), device(), device());
  return text;
}

absl::StatusOr<std::string> ToId(const std::string& given) {
  if (given.empty()) return DrawId();
  const bool printable = std::all_of(given.begin(), given.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F;
  });
  if (given.size() > kMaxRequestIdBytes || !printable) {
    return InvalidField(
        "request_id", Quoted(given),
        absl::StrCat("at most ", kMaxRequestIdBytes, " bytes, without control characters"));
  }
  return given;
}

absl::StatusOr<StopOptions> ToStop(const v1::StopOptions& given, const ModelFacts& model) {
  StopOptions out;
  if (given.strings_size() > 0) {
    if (auto status = NeedTokenizer("stop.strings", model); !status.ok()) return status;
  }
  if (given.strings_size() > kMaxStopStrings) {
    return InvalidField("stop.strings", absl::StrCat(given.strings_size(), " strings"),
                        absl::StrCat("at most ", kMaxStopStrings));
  }
  for (int i = 0; i < given.strings_size(); ++i) {
    if (given.strings(i).empty()) {
      return InvalidField(absl::StrCat("stop.strings[", i, "]"), "empty", "at least one byte");
    }
    out.strings.push_back(given.strings(i));
  }
  auto ids = ToTokenIds("stop.token_ids", given.token_ids(), model);
  if (!ids.ok()) return ids.status();
  std::sort(ids->begin(), ids->end());
  ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
  out.token_ids = *std::move(ids);
  out.ignore_eos = given.ignore_eos();
  out.include_stop_in_output = given.include_stop_in_output();
  return out;
}

absl::StatusOr<LogprobOptions> ToLogprobs(const v1::LogprobOptions& given) {
  if (given.top() > static_cast<uint32_t>(kMaxTopLogprobs)) {
    return InvalidField("logprobs.top", absl::StrCat(given.top()),
                        absl::StrCat("0 ... ", kMaxTopLogprobs));
  }
  return LogprobOptions{static_cast<int32_t>(given.top()), given.prompt()};
}

absl::StatusOr<int32_t> ToN(const v1::GenerateRequest& request, const ModelFacts& model) {
  if (!request.has_n()) return 1;
  if (request.n() < 1 || request.n() > static_cast<uint32_t>(model.max_batch_size)) {
    return InvalidField("n", absl::StrCat(request.n()),
                        absl::StrCat("1 ... ", model.max_batch_size));
  }
  return static_cast<int32_t>(request.n());
}

// What max_new_tokens: 0 needs, known before the prompt is tokenised.
absl::Status CheckScoring(const v1::GenerateRequest& request) {
  const bool scores = request.has_max_new_tokens() && request.max_new_tokens() == 0;
  if (scores && !request.logprobs().prompt()) {
    return InvalidField("max_new_tokens", "0", "at least 1 unless logprobs.prompt is set");
  }
  return absl::OkStatus();
}

// Sets the lengths: max_new_tokens is cut to the room that the prompt leaves.
absl::Status ResolveLengths(const v1::GenerateRequest& request, const ModelFacts& model,
                            Request& out) {
  const int64_t asked =
      request.has_max_new_tokens() ? int64_t{request.max_new_tokens()} : int64_t{model.max_length};
  const int64_t prompt = static_cast<int64_t>(out.prompt.size());
  const int64_t longest = asked == 0 ? model.max_length : model.max_length - 1;
  if (prompt > longest) {
    return InvalidField(InputField(request),
                        absl::StrCat("has ", prompt, " tokens; allowed: 1 ... ", longest,
                                     " (max_length is ", model.max_length, ")"));
  }
  const int64_t room = model.max_length - prompt;
  const int64_t min_new = request.sampling().min_new_tokens();
  const int64_t most = request.has_max_new_tokens() ? asked : room;
  if (min_new > most) {
    return InvalidField("sampling.min_new_tokens", absl::StrCat(min_new),
                        absl::StrCat("0 ... ", most,
                                     request.has_max_new_tokens() ? " (max_new_tokens)"
                                                                  : " (the room in max_length)"));
  }
  out.max_new_tokens = static_cast<int32_t>(std::min(asked, room));
  out.sampling.min_new_tokens =
      static_cast<int32_t>(std::min<int64_t>(min_new, out.max_new_tokens));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Request> ToRequest(const v1::GenerateRequest& request, const ModelFacts& model) {
  absl::Status status = CheckModel(request, model);
  if (status.ok()) status = CheckSupported(request);
  if (status.ok()) status = CheckScoring(request);
  if (!status.ok()) return status;

  Request out;
  auto id = ToId(request.request_id());
  if (!id.ok()) return id.status();
  out.id = *std::move(id);
  auto n = ToN(request, model);
  if (!n.ok()) return n.status();
  out.n = *n;
  out.priority = request.priority();
  out.cache_salt = request.cache_salt();
  out.answer_prefix = request.answer_prefix();
  auto sampling = ToSamplingParams(request.sampling(), model);
  if (!sampling.ok()) return sampling.status();
  out.sampling = *std::move(sampling);
  auto stop = ToStop(request.stop(), model);
  if (!stop.ok()) return stop.status();
  out.stop = *std::move(stop);
  if (request.has_logprobs()) {
    auto logprobs = ToLogprobs(request.logprobs());
    if (!logprobs.ok()) return logprobs.status();
    out.logprobs = *logprobs;
  }
  if (status = ResolveBeam(request, model, out); !status.ok()) return status;

  // Last, because it takes longest.
  auto prompt = PromptIds(request, model);
  if (!prompt.ok()) return prompt.status();
  out.prompt = *std::move(prompt);
  if (status = ResolveLengths(request, model, out); !status.ok()) return status;
  return out;
}

}  // namespace sirocco
