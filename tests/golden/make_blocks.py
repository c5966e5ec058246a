#!/usr/bin/env python3
"""make_blocks: writes tests/golden/data/blocks.safetensors: what the Python package gguf makes of some values.

For each quantised type random blocks (every byte random, scales any finite fp16) and their values; for those that
gguf can write also rows of values (normal, tiny, constant, one large, negative zeros) and their blocks.

Usage: make_blocks.py [FILE]     (needs gguf, numpy, safetensors; deterministic)
"""

import os
import sys

import numpy
from gguf import GGMLQuantizationType as Type
from gguf import dequantize, quantize
from safetensors.numpy import save_file

BYTES = {"q8_0": 34, "q4_0": 18, "q4_1": 20, "q4_k": 144, "q5_k": 176, "q6_k": 210}
SCALES = {"q8_0": [0], "q4_0": [0], "q4_1": [0, 2], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208]}
COUNT = 10  # blocks


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    where = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "data", "blocks.safetensors")
    random = numpy.random.default_rng(7)
    out = {}
    for name, size in BYTES.items():
        data = random.integers(0, 256, (COUNT, size), dtype=numpy.uint8)
        for at in SCALES[name]:
            bits = random.integers(0, 0x7c00, COUNT).astype(numpy.uint16) | \
                (random.integers(0, 2, COUNT) << 15).astype(numpy.uint16)
            data[:, at:at + 2] = bits[:, None].view(numpy.uint8)
        out[f"{name}.blocks"] = data
        out[f"{name}.values"] = dequantize(data, Type[name.upper()])
    rows = random.standard_normal((COUNT, 32)).astype(numpy.float32)
    rows[1] *= 1e-7
    rows[2] = 0
    rows[3] = -0.75
    rows[4, 7] = 300
    rows[5, ::2] = -0.0
    rows[6] = numpy.round(rows[6] * 4) / 4  # ties
    rows[7] = numpy.arange(-16, 16)
    rows[8] = numpy.arange(32)
    out["rows"] = rows
    for name in ("q8_0", "q4_0", "q4_1"):
        out[f"{name}.written"] = quantize(rows, Type[name.upper()])
    save_file({k: numpy.ascontiguousarray(v) for k, v in out.items()}, where)


main()
