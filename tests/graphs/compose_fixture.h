// The fixture of the tests of what plans do: operations, their layers and their buffers.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "graphs/compose.h"
#include "graphs/executor.h"
#include "graphs/layer_params.h"
#include "tests/graphs/fake_device.h"
#include "tests/testing/random_model.h"

namespace sirocco {

// A context on a fake device's memory, as an executor makes it.
class ComposeTest : public ::testing::Test {
 protected:
  void SetUp() override { Make(RandomNorms::kFew); }

  void Make(RandomNorms norms) {
    absl::StatusOr<RandomModel> model = MakeRandomModel(device_, DType::kFloat32, 1, norms);
    ASSERT_TRUE(model.ok());
    model_ = *std::move(model);
    options_.max_batch_size = 4;
    options_.max_length = 64;
    options_.prefill_chunk_size = 16;
    workspace_.resize(PlaceStepBuffers(model_.descriptor, options_, nullptr, buffers_));
    PlaceStepBuffers(model_.descriptor, options_, workspace_.data(), buffers_);
    const std::vector<RotaryTable> rotaries(2, RotaryTable{.dim = 8});
    std::vector<std::byte> no_kv;
    layers_ = MakeLayerParams(
        model_.descriptor, model_.weights, rotaries,
        MakeKvLayers(model_.descriptor, 16, DType::kFloat32, {workspace_.data(), nullptr}));
  }

  ComposeContext Context() {
    return {.descriptor = model_.descriptor,
            .weights = model_.weights,
            .buffers = buffers_,
            .layers = layers_,
            .layer_table = layers_.data()};
  }

  template <typename Params>
  static std::vector<Params> All(const Plan& plan) {
    std::vector<Params> found;
    for (const Plan::Entry& entry : plan.entries()) {
      if (const Params* params = std::get_if<Params>(&entry.operation)) found.push_back(*params);
    }
    return found;
  }

  FakeDevice device_;
  RandomModel model_;
  ExecutorOptions options_;
  StepBuffers buffers_;
  std::vector<std::byte> workspace_;
  std::vector<LayerParams> layers_;
};

}  // namespace sirocco
