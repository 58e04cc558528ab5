// The fixture of the fused operations' tests: operations one at a time, of the parts of a layer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/kernels/fused_world.h"
#include "tests/kernels/ops_test.h"
#include "tests/kernels/reference.h"

namespace sirocco {
class FusedOpsTest : public TypedOpsTest {
 protected:
  // Of weights in blocks, whole blocks of inputs, and heads that are no whole groups of rows.
  LayerShape Shape(bool post_norms = false) const {
    LayerShape shape{.post_norms = post_norms};
    if (InBlocks(dtype())) {
      shape.hidden = 64;
      shape.heads = 4;
      shape.head_dim = 24;
      shape.intermediate = 96;
    }
    return shape;
  }

  // Runs `check` over shapes: even ones, odd ones with partial rotation, and with all norms a
  // layer can have; one row and many, these also as a layer that the host knows. And over a deep
  // one, whose sums a device may make in parts.
  template <typename Check>
  void OnShapes(const Check& check) {
    const LayerShape odd{.hidden = 61,
                         .heads = 3,
                         .kv_heads = 1,
                         .head_dim = 17,
                         .rotary_dim = 10,
                         .intermediate = 101,
                         .biases = false,
                         .activation = Activation::kGeluTanh};
    const LayerShape norms{.hidden = 80,
                           .heads = 4,
                           .kv_heads = 1,
                           .head_dim = 32,
                           .rotary_dim = 32,
                           .intermediate = 96,
                           .biases = false,
                           .head_norms = true,
                           .post_norms = true,
                           .activation = Activation::kGeluTanh};
    LayerShape post_norms = norms;  // and no others
    post_norms.pre_norms = post_norms.head_norms = false;
    LayerShape norms_in_blocks = norms;
    norms_in_blocks.hidden = 96;
    LayerShape odd_norms = odd;
    odd_norms.biases = odd_norms.head_norms = odd_norms.post_norms = true;
    const LayerShape deep{.hidden = 1032,
                          .heads = 2,
                          .kv_heads = 1,
                          .head_dim = 128,
                          .rotary_dim = 96,
                          .intermediate = 1040,
                          .head_norms = true,
                          .post_norms = true};
    const std::vector<LayerShape> shapes =
        InBlocks(dtype())
            ? std::vector<LayerShape>{Shape(), norms_in_blocks}
            : std::vector<LayerShape>{Shape(), odd, norms, post_norms, odd_norms, deep};
    for (const LayerShape& shape : shapes) {
      for (const int32_t rows : {1, 3, 37, 150}) {
        if (shape.hidden == deep.hidden && rows == 150) continue;  // nothing new, and slow
        OnShape(shape, rows, check);
      }
      if (InBlocks(dtype())) continue;  // no library's
      LayerShape known = shape;
      known.on_host = true;
      OnShape(known, 7, check);
      known.adjacent = true;
      for (const int32_t rows : {3, 16, 21, 40, 70}) OnShape(known, rows, check);
    }
  }

  template <typename Check>
  void OnShape(const LayerShape& shape, int32_t rows, const Check& check) {
    SCOPED_TRACE(::testing::Message()
                 << "hidden " << shape.hidden << ", heads of " << shape.head_dim << ", rows "
                 << rows << (shape.post_norms ? ", with post-norms" : "")
                 << (shape.pre_norms ? "" : ", without pre-norms")
                 << (shape.on_host ? ", on the host" : "") << (shape.adjacent ? ", adjacent" : ""));
    const DType kv = kv_dtype() == DType::kFloat8 ? DType::kFloat8
                     : InBlocks(dtype())          ? DType::kBFloat16
                                                  : dtype();
    const LayerWorld world(memory(), shape, rows, activations(), dtype(), kv);
    check(world);
  }

  void ExpectSame(const std::vector<float>& fused, const std::vector<float>& eager) {
    if (GetParam().device.invariant) {
      EXPECT_EQ(fused, eager);
    } else {
      ExpectNear(fused, reference::Wide(eager), tolerance());
    }
  }
  // The same of what a KV cache has, or what is made of it. In float8 an element near the middle of
  // two neighbours may become the other one, an eighth away: few do.
  void ExpectSameKv(const std::vector<float>& fused, const std::vector<float>& eager) {
    if (kv_dtype() != DType::kFloat8 || GetParam().device.invariant) {
      ExpectSame(fused, eager);
      return;
    }
    ExpectNear(fused, reference::Wide(eager), 0.13);
    float largest = 0;
    for (const float value : eager) largest = std::max(largest, std::fabs(value));
    size_t others = 0;
    for (size_t i = 0; i < eager.size(); ++i) {
      others += std::fabs(fused[i] - eager[i]) > tolerance() * largest;
    }
    EXPECT_LE(others, eager.size() / 10);
  }

  Rows Upload(const std::vector<float>& values, int32_t width) {
    return memory().Activations(values, activations(), width);
  }
  Rows Empty(const LayerWorld& w, int32_t width) {
    return memory().Empty(w.rows, activations(), width);
  }
  Rows Hidden(const LayerWorld& w) { return memory().Residual(w.hidden_values, w.shape.hidden); }
  Rows Delta(const LayerWorld& w) { return memory().Residual(w.delta_values, w.shape.hidden); }
  Rows EmptyResidual(const LayerWorld& w) { return memory().EmptyResidual(w.rows, w.shape.hidden); }
  Rows EmptyQkv(const LayerWorld& w) {
    return memory().EmptyResidual(w.rows, w.ref.q_rows + 2 * w.ref.kv_rows);
  }
  std::vector<float> Get(const LayerWorld& w, const Rows& rows) {
    return memory().Download(rows, w.rows);
  }

  void NormTo(const LayerWorld& w, const Rows& in, const float* weight, const Rows& out) {
    Execute(RmsNormParams{w.rows, in, weight, w.layer.norm_epsilon, out});
  }
  Rows Norm(const LayerWorld& w, const Rows& in, const float* weight) {
    const Rows out = Empty(w, in.width);
    NormTo(w, in, weight, out);
    return out;
  }
  Rows Product(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias,
               const Rows& out) {
    Execute(MatMulParams{w.rows, in, weight, bias, out});
    return out;
  }
  Rows Product(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias) {
    return Product(w, in, weight, bias, Empty(w, weight.rows));
  }
  void NormHeads(const LayerWorld& w, const Rows& heads, const float* weight) {
    if (weight == nullptr) return;
    Execute(HeadNormParams{w.rows, heads, w.shape.head_dim, weight, w.layer.norm_epsilon});
  }
  void Turn(const LayerWorld& w, const Rows& heads) {
    Execute(RotaryParams{w.rows, w.map, heads, w.shape.head_dim, w.layer.rotary});
  }

  // The products of q, k and v, side by side.
  std::vector<float> EagerQkv(const LayerWorld& w, const Rows& normed) {
    std::vector<std::vector<float>> parts;
    for (const Matrix* weight : {&w.layer.q, &w.layer.k, &w.layer.v}) {
      parts.push_back(Get(
          w, Product(w, normed, *weight, nullptr, memory().EmptyResidual(w.rows, weight->rows))));
    }
    std::vector<float> all;
    for (int32_t row = 0; row < w.rows; ++row) {
      for (const std::vector<float>& part : parts) {
        const int64_t width = static_cast<int64_t>(part.size()) / w.rows;
        all.insert(all.end(), part.begin() + row * width, part.begin() + (row + 1) * width);
      }
    }
    return all;
  }

  // q, and the KV cache written, one operation at a time.
  Rows EagerQueries(const LayerWorld& w, const Rows& normed) {
    const Rows q = Product(w, normed, w.layer.q, w.layer.q_bias);
    const Rows k = Product(w, normed, w.layer.k, w.layer.k_bias);
    const Rows v = Product(w, normed, w.layer.v, w.layer.v_bias);
    NormHeads(w, q, w.layer.q_norm);
    NormHeads(w, k, w.layer.k_norm);
    Turn(w, q);
    Turn(w, k);
    Execute(WriteKvParams{w.rows, w.map, w.world.lanes(), k, v, w.layer.kv});
    return q;
  }

  // A copy of the hidden rows with `delta` added, which goes through `post_norm` before if there
  // is one.
  Rows EagerAdd(const LayerWorld& w, const Rows& delta, const float* post_norm) {
    const Rows hidden = Hidden(w);
    if (post_norm != nullptr) NormTo(w, delta, post_norm, delta);
    Execute(AddParams{w.rows, hidden, delta});
    return hidden;
  }

  // in * weight^T + bias as a delta of the residual stream.
  Rows EagerDelta(const LayerWorld& w, const Rows& in, const Matrix& weight, const float* bias) {
    return Product(w, in, weight, bias, EmptyResidual(w));
  }

  NormQkvParams NormQkv(const LayerWorld& w) {
    NormQkvParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.hidden = Hidden(w);
    p.normed = Empty(w, w.shape.hidden);
    p.qkv = EmptyQkv(w);
    if (w.shape.post_norms) {
      p.delta = Delta(w);
      p.sum = EmptyResidual(w);
    }
    return p;
  }

  QkvAttentionParams QkvAttention(const LayerWorld& w, const Rows& qkv) {
    QkvAttentionParams p;
    p.rows = w.rows;
    p.map = w.map;
    p.lanes = w.world.lanes();
    p.layer = w.Ref();
    p.qkv = qkv;
    p.q = Empty(w, w.ref.q_rows);
    p.out = Empty(w, w.ref.q_rows);
    return p;
  }

  DownNormParams DownNorm(const LayerWorld& w) {
    DownNormParams p;
    p.rows = w.rows;
    p.layer = w.Ref();
    p.in = Upload(w.mlp_values, w.shape.intermediate);
    p.hidden = Hidden(w);
    p.next_norm = w.next_norm;
    p.normed = Empty(w, w.shape.hidden);
    if (w.shape.post_norms) p.delta = EmptyResidual(w);
    return p;
  }

  void ExpectDownNorm(const LayerWorld& w, const DownNormParams& p) {
    Execute(p);
    const Rows hidden =
        EagerAdd(w, EagerDelta(w, p.in, w.layer.down, w.layer.down_bias), w.layer.mlp_post_norm);
    ExpectSame(Get(w, p.hidden), Get(w, hidden));
    ExpectSame(Get(w, p.normed), Get(w, Norm(w, hidden, w.next_norm)));
  }

  // Of normed rows: products and attention, against the operations one by one.
  void ExpectQkvAttention(const LayerWorld& w) {
    QkvParams products;
    products.rows = w.rows;
    products.layer = w.Ref();
    products.normed = Upload(Rounded(w.hidden_values, activations()), w.shape.hidden);
    products.qkv = EmptyQkv(w);
    Execute(products);
    const std::vector<float> clean = w.cache.Download(memory());
    const Rows sums = memory().Residual(Get(w, products.qkv), products.qkv.width);
    const QkvAttentionParams p = QkvAttention(w, products.qkv);
    Execute(p);
    const std::vector<float> fused_kv = w.cache.Download(memory());
    EXPECT_NE(fused_kv, clean);

    DecodeAttentionParams decode;
    decode.rows = w.rows;
    decode.map = w.map;
    decode.lanes = w.world.lanes();
    decode.q = EagerQueries(w, products.normed);
    decode.shape = w.layer.attention;
    decode.kv = w.layer.kv;
    decode.out = Empty(w, w.ref.q_rows);
    Execute(decode);
    ExpectSameKv(fused_kv, w.cache.Download(memory()));
    ExpectSameKv(Get(w, p.out), Get(w, decode.out));

    // The end alone, into an empty cache.
    w.cache.Clear(device());
    EagerQueries(w, products.normed);
    const std::vector<float> eager_kv = w.cache.Download(memory());
    w.cache.Clear(device());
    const QkvEndParams end{w.rows, w.map, w.world.lanes(), w.Ref(), sums, Empty(w, w.ref.q_rows)};
    Execute(end);
    ExpectSameKv(w.cache.Download(memory()), eager_kv);
    ExpectSame(Get(w, end.q), Get(w, decode.q));
  }

  // The layer's table with one field changed.
  template <typename Change>
  LayerRef Changed(const LayerWorld& w, const Change& change) {
    LayerParams layer = w.layer;
    change(layer);
    LayerRef ref = w.ref;
    ref.table = memory().Upload(std::vector<LayerParams>{LayerParams(), layer});
    return ref;
  }
};

}  // namespace sirocco
