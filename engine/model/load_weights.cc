#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/device_stream.h"
#include "engine/model/file_error.h"
#include "engine/model/model_files.h"
#include "engine/model/tensor_rows.h"
#include "engine/model/weight_places.h"

namespace sirocco {
namespace {

// Made by one thread, and copied, at once: small enough for a dozen and more of them to be under
// way, and so large that neither reading nor copying is slower for it.
constexpr uint64_t kPartBytes = 4 << 20;
constexpr int64_t kPieceValues = 1 << 16;  // converted at once: what caches hold

// A tensor, or a tensor that is a part of a place, and where it belongs.
struct Placed {
  const StoredTensor* tensor = nullptr;
  DType dtype = DType::kFloat32;
  uint64_t elements = 0;
  uint64_t offset = 0;  // in the weights' memory
};

// How a part is made of its tensor.
struct Source {
  const StoredTensor* tensor = nullptr;
  DType dtype = DType::kFloat32;
  bool as_it_is = false;
  int64_t first = 0;  // row; of a tensor that is taken as it is, byte
};

bool AsItIs(const Placed& placed) {
  const StoredTensor& tensor = *placed.tensor;
  return tensor.permuted_heads == 0 && tensor.added == 0 && DTypeOf(tensor.type) == placed.dtype;
}

// Parts of the weights' memory, and what each is made of.
class Parts {
 public:
  void Add(const Placed& placed) {
    const int64_t width = RowElements(*placed.tensor);
    const bool as_it_is = AsItIs(placed);
    // Of rows whole ones, and of a vector whole blocks, which divide kPartBytes.
    const uint64_t unit = as_it_is ? 1 : BytesOf(placed.dtype, static_cast<uint64_t>(width));
    const uint64_t most = std::max(kPartBytes / unit, uint64_t{1}) * unit;
    const uint64_t bytes = BytesOf(placed.dtype, placed.elements);
    for (uint64_t done = 0; done < bytes; done += most) {
      places_.push_back({placed.offset + done, std::min(most, bytes - done)});
      sources_.push_back(
          {placed.tensor, placed.dtype, as_it_is, static_cast<int64_t>(done / unit)});
    }
  }

  std::vector<DeviceStream::Part> TakePlaces() { return std::move(places_); }

  // Any thread.
  absl::Status Make(size_t part, std::span<std::byte> out) const {
    const Source& source = sources_[part];
    const StoredTensor& tensor = *source.tensor;
    if (source.as_it_is) return tensor.reader->Read(tensor.offset + source.first, out);
    if (InBlocks(source.dtype)) return CopyRows(tensor, source.first, out);
    return Convert(source, out);
  }

 private:
  static absl::Status Convert(const Source& source, std::span<std::byte> out) {
    const int64_t width = RowElements(*source.tensor);
    const uint64_t row_bytes = BytesOf(source.dtype, static_cast<uint64_t>(width));
    const int64_t rows = static_cast<int64_t>(out.size() / row_bytes);
    // Whole rows, and of a vector whole blocks: both divide kPieceValues where rows are narrow.
    const int64_t piece_rows = std::min(rows, std::max<int64_t>(1, kPieceValues / width));
    std::vector<float> values(piece_rows * width);
    for (int64_t row = 0; row < rows; row += piece_rows) {
      const int64_t count = std::min(piece_rows, rows - row);
      values.resize(count * width);
      absl::Status status = ReadRows(*source.tensor, source.first + row, values);
      if (!status.ok()) return status;
      StoreAs(values, source.dtype, out.data() + row * row_bytes);
    }
    return absl::OkStatus();
  }

  std::vector<DeviceStream::Part> places_;
  std::vector<Source> sources_;
};

// In the order in which files hold them, which is how disks are read fastest.
absl::StatusOr<std::vector<Placed>> TensorsOf(const ModelFiles& files, const WeightLayout& layout) {
  std::vector<Placed> tensors;
  for (const WeightPlace& place : layout.places) {
    const auto add = [&](const std::string& name, const std::vector<int64_t>& shape,
                         uint64_t before) {
      const StoredTensor* tensor = files.tensors->Find(name);
      if (tensor == nullptr || tensor->shape != shape) {
        return InvalidFile(files.name, absl::StrCat("has no tensor ", Shown(name),
                                                    " of the shape that its settings ask for"));
      }
      tensors.push_back({tensor, place.dtype,
                         place.elements / std::max<size_t>(place.parts.size(), 1),
                         place.offset + BytesOf(place.dtype, before)});
      return absl::OkStatus();
    };
    if (absl::Status status = ForEachTensor(place, add); !status.ok()) return status;
  }
  std::sort(tensors.begin(), tensors.end(), [](const Placed& a, const Placed& b) {
    return std::tie(a.tensor->file, a.tensor->offset) < std::tie(b.tensor->file, b.tensor->offset);
  });
  return tensors;
}

}  // namespace

uint64_t WeightBytes(const ModelDescriptor& descriptor, const WeightTypes& types) {
  ModelWeights scratch;
  return LayOutWeights(descriptor, types, scratch).bytes;
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelFiles& files, const WeightTypes& types,
                                         Device& device, const LoadProgress& progress) {
  ModelWeights weights;
  const WeightLayout layout = LayOutWeights(files.descriptor, types, weights);
  absl::StatusOr<std::vector<Placed>> placed = TensorsOf(files, layout);
  if (!placed.ok()) return placed.status();
  Parts parts;
  for (const Placed& tensor : *placed) parts.Add(tensor);
  // Threads begin to read while the device makes room.
  absl::StatusOr<std::unique_ptr<DeviceStream>> stream = DeviceStream::Start(
      device, parts.TakePlaces(),
      [&parts](size_t part, std::span<std::byte> out) { return parts.Make(part, out); });
  if (!stream.ok()) return stream.status();
  absl::StatusOr<std::unique_ptr<Buffer>> buffer =
      device.Allocate(layout.bytes, MemoryUse::kWeights);
  if (!buffer.ok()) return buffer.status();
  uint64_t done = 0;
  absl::Status status = (*stream)->Send((*buffer)->as<std::byte>(), [&](uint64_t bytes) {
    done += bytes;
    if (progress) progress(done, layout.weight_bytes);
  });
  stream->reset();
  if (status.ok()) {
    status = BindWeights(files.descriptor, layout, device, *std::move(buffer), weights);
  }
  if (!status.ok()) return status;
  return weights;
}

}  // namespace sirocco
