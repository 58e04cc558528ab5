"""Makes blocks.safetensors: blocks of ggml's quantised types, and what they stand for.

All bits are random but the scales, which are small and finite. The values are those of PyPI's
`gguf` package (0.19), an implementation that is not ours. Needs gguf, numpy and safetensors.

usage: make_blocks.py FILE
"""

import sys

import gguf
import numpy
from safetensors.numpy import save_file

BLOCKS = 3
# Where the float16 numbers of a block stand, in bytes.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208]}


def main():
    random = numpy.random.default_rng(5)
    tensors = {}
    for name, places in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (BLOCKS, size), dtype=numpy.uint8)
        for place in places:
            scales = random.normal(0, 0.01, BLOCKS).astype(numpy.float16)
            blocks[:, place:place + 2] = scales.view(numpy.uint8).reshape(BLOCKS, 2)
        values = gguf.quants.dequantize(blocks, kind).astype(numpy.float32)
        tensors[name + ".bytes"] = blocks.astype(numpy.int32)
        tensors[name + ".values"] = values.reshape(-1)
    save_file(tensors, sys.argv[1])


if __name__ == "__main__":
    main()
