#!/usr/bin/env python3
"""make_gguf_seeds: writes tests/fuzz/corpus/gguf/: whole models of a few hundred values, and odd files.

Usage: make_gguf_seeds.py     (needs gguf, numpy; deterministic)
"""

import os

import numpy
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter

HERE = os.path.dirname(os.path.abspath(__file__))
WHERE = os.path.join(HERE, "corpus", "gguf")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def model(name, arch, tied, biases=False, fused=False, rope=False):
    """A block of hidden size 4, vocabulary 4."""
    writer = GGUFWriter(os.path.join(WHERE, name), arch)
    writer.add_context_length(8)
    writer.add_embedding_length(4)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_bos_token_id(1)
    values = lambda *shape: (numpy.arange(numpy.prod(shape)).reshape(shape) / 8).astype(numpy.float16)
    norm = numpy.ones(4, numpy.float32)
    writer.add_tensor("token_embd.weight", values(4, 4))
    writer.add_tensor("output_norm.weight", norm)
    if not tied:
        writer.add_tensor("output.weight", values(4, 4))
    if rope:
        writer.add_tensor("rope_freqs.weight", numpy.ones(2, numpy.float32))
    for part in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{part}.weight", norm)
    shapes = {"attn_output": (4, 4), "ffn_up": (4 if fused else 2, 4), "ffn_down": (4, 2)}
    shapes.update({"attn_qkv": (12, 4)} if fused else
                  {"attn_q": (4, 4), "attn_k": (4, 4), "attn_v": (4, 4), "ffn_gate": (2, 4)})
    for part, shape in shapes.items():
        writer.add_tensor(f"blk.0.{part}.weight", values(*shape))
        if biases and part in ("attn_q", "attn_k", "attn_v", "attn_qkv"):
            writer.add_tensor(f"blk.0.{part}.bias", numpy.zeros(shape[0], numpy.float32))
    finish(writer)


def blocks(name):
    """A block of every quantised type, and metadata of every kind."""
    writer = GGUFWriter(os.path.join(WHERE, name), "llama")
    writer.add_uint8("u8", 1)
    writer.add_int8("i8", -1)
    writer.add_uint16("u16", 2)
    writer.add_int16("i16", -2)
    writer.add_int32("i32", -3)
    writer.add_uint64("u64", 4)
    writer.add_int64("i64", -4)
    writer.add_float64("f64", 0.5)
    writer.add_bool("flag", True)
    writer.add_array("texts", ["a", "", "bc"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("reals", [0.5, 1.5])
    sizes = {Type.Q8_0: 34, Type.Q4_0: 18, Type.Q4_1: 20, Type.Q4_K: 144, Type.Q5_K: 176, Type.Q6_K: 210}
    for kind, size in sizes.items():
        writer.add_tensor(kind.name, numpy.zeros((1, size), numpy.uint8), raw_dtype=kind)
    writer.add_tensor("bf16", numpy.zeros((1, 4), numpy.uint16).view(numpy.uint8), raw_dtype=Type.BF16)
    finish(writer)


os.makedirs(WHERE, exist_ok=True)
model("llama", "llama", True, rope=True)
model("qwen2", "qwen2", False, biases=True)
model("chatglm", "chatglm", False, biases=True, fused=True)
blocks("blocks")
with open(os.path.join(WHERE, "empty"), "wb") as file:
    file.write(b"GGUF" + bytes([2, 0, 0, 0]) + bytes(16))
