#!/usr/bin/env python3
"""make_gguf: writes the golden vectors of GGUF's K-quants, tests/golden/data/gguf-k/.

One file of a tiny llama whose matrices are Q4_K, Q5_K and Q6_K: valid random blocks (random bytes with sane fp16
scales; some negative, some subnormal), because the package gguf reads those types but doesn't write them. gguf
dequantises them; transformers' LlamaForCausalLM computes the forward pass from that in float64 (stored as fp32).
The layout is the one golden_check reads: gguf/, dequant-TYPE and forward-TYPE.

Usage: make_gguf.py [DIRECTORY]     (needs gguf, torch, transformers, safetensors; deterministic)
"""

import json
import os
import shutil
import sys

import numpy
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, dequantize
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)

HIDDEN, INNER, HEADS, KV, D, VOCAB = 256, 32, 2, 1, 16, 16
#  GGUF's name, Hugging Face's, type, rows; all have HIDDEN columns.
BLOCKS = [("token_embd", "model.embed_tokens", Type.Q4_K, VOCAB),
          ("blk.0.attn_q", "model.layers.0.self_attn.q_proj", Type.Q5_K, HEADS * D),
          ("blk.0.attn_k", "model.layers.0.self_attn.k_proj", Type.Q6_K, KV * D),
          ("blk.0.attn_v", "model.layers.0.self_attn.v_proj", Type.Q4_K, KV * D),
          ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj", Type.Q6_K, INNER),
          ("blk.0.ffn_up", "model.layers.0.mlp.up_proj", Type.Q5_K, INNER)]
#  Rows too short for K-quants.
HALVES = [("blk.0.attn_output", "model.layers.0.self_attn.o_proj", (HIDDEN, HEADS * D)),
          ("blk.0.ffn_down", "model.layers.0.mlp.down_proj", (HIDDEN, INNER))]
NORMS = [("output_norm", "model.norm"), ("blk.0.attn_norm", "model.layers.0.input_layernorm"),
         ("blk.0.ffn_norm", "model.layers.0.post_attention_layernorm")]
SEQUENCES = [(2, 1), (3, 1), (4, 2)]  # context and answer


def blocks(random, kind, rows, deviation):
    """Random blocks [rows, bytes] whose values are of about this size; a block a row."""
    size = {Type.Q4_K: 144, Type.Q5_K: 176, Type.Q6_K: 210}[kind]
    data = random.integers(0, 256, (rows, size), dtype=numpy.uint8)
    most = {Type.Q4_K: 63 * 15, Type.Q5_K: 63 * 31, Type.Q6_K: 127 * 32}[kind]
    d = (deviation * 4 / most * random.uniform(0.5, 1.5, (rows, 1))).astype(numpy.float16)
    d[::5] *= -1
    d[1::7] = numpy.float16(3e-6) if kind != Type.Q6_K else numpy.float16(6e-7)  # subnormal
    if kind == Type.Q6_K:
        data[:, 208:210] = d.view(numpy.uint8)
        return data
    minimum = (d * (7.5 if kind == Type.Q4_K else 15.5)).astype(numpy.float16)
    data[:, 0:2], data[:, 2:4] = d.view(numpy.uint8), minimum.view(numpy.uint8)
    return data


def in_hf_order(matrix):
    """Rows of q or k from the order of the file (2j + s of a head) to Hugging Face's (s D/2 + j)."""
    heads = matrix.shape[0] // D
    return matrix.reshape(heads, D // 2, 2, -1).swapaxes(1, 2).reshape(matrix.shape).copy()


def write(path):
    random = numpy.random.default_rng(20250711)
    writer = GGUFWriter(path, "llama")
    writer.add_name("golden-k")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_key_length(D)
    writer.add_value_length(D)
    writer.add_rope_dimension_count(D)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"<{i}>" for i in range(VOCAB)])
    weights = {}
    for name, hf, kind, rows in BLOCKS:
        data = blocks(random, kind, rows, 0.1 if name == "token_embd" else 0.06)
        writer.add_tensor(name + ".weight", data, raw_dtype=kind)
        values = dequantize(data, kind)
        assert values.shape == (rows, HIDDEN) and numpy.isfinite(values).all()
        weights[hf + ".weight"] = in_hf_order(values) if "attn_q" in name or "attn_k" in name else values
    for name, hf, shape in HALVES:
        values = (random.standard_normal(shape) * 0.15).astype(numpy.float16)
        writer.add_tensor(name + ".weight", values)
        weights[hf + ".weight"] = values
    for name, hf in NORMS:
        values = random.uniform(0.5, 1.5, HIDDEN).astype(numpy.float32)
        writer.add_tensor(name + ".weight", values)
        weights[hf + ".weight"] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights, random


def compute(weights, random):
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=1,
                         num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=D, rms_norm_eps=1e-5,
                         rope_theta=10000.0, max_position_embeddings=64, tie_word_embeddings=True,
                         attn_implementation="eager")
    model = LlamaForCausalLM(config).double().eval()
    loaded = model.load_state_dict({k: torch.from_numpy(v).double() for k, v in weights.items()}, strict=False)
    assert loaded.missing_keys == ["lm_head.weight"] and not loaded.unexpected_keys
    model.tie_weights()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    out = {"context_length": numpy.array([c for c, _ in SEQUENCES], numpy.int32)}
    sums, counts = [], []
    for i, (context, answer) in enumerate(SEQUENCES):
        length = context + answer
        ids = torch.from_numpy(random.integers(0, VOCAB, length))
        labels = ids.clone()
        labels[:context] = -100
        with torch.no_grad():
            got = model(ids[None], output_hidden_states=True)
        logits = got.logits[0].double()
        nll = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")
        #  The last of transformers' hidden states is normed; the block's own output is not among them.
        rows = block_output(model, ids)
        for name, tensor in (("hidden.%d.embed", got.hidden_states[0][0]), ("hidden.%d.block.0", rows),
                             ("hidden.%d.final_norm", got.hidden_states[-1][0]), ("logits.%d", logits)):
            out[name % i] = tensor.float().numpy()
        out[f"input_ids.{i}"] = ids.numpy().astype(numpy.int32)
        out[f"labels.{i}"] = labels.numpy().astype(numpy.int32)
        out[f"position_ids.{i}"] = numpy.arange(length, dtype=numpy.int32)
        sums.append(nll.item())
        counts.append(int((labels[1:] >= 0).sum()))
    out["nll_sum"] = numpy.array(sums, numpy.float32)
    out["token_count"] = numpy.array(counts, numpy.int32)
    out["loss"] = numpy.array([sum(sums) / sum(counts)], numpy.float32)
    return out


def block_output(model, ids):
    kept = []
    hook = model.model.layers[0].register_forward_hook(lambda module, args, out: kept.append(out[0][0]))
    with torch.no_grad():
        model(ids[None])
    hook.remove()
    return kept[0]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    where = os.path.join(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "data"), "gguf-k")
    shutil.rmtree(where, ignore_errors=True)
    os.makedirs(os.path.join(where, "gguf"))
    weights, random = write(os.path.join(where, "gguf", "tiny-mixed.gguf"))
    save_file({k: numpy.ascontiguousarray(v) for k, v in weights.items()},
              os.path.join(where, "dequant-mixed.safetensors"))
    save_file({k: numpy.ascontiguousarray(v) for k, v in compute(weights, random).items()},
              os.path.join(where, "forward-mixed.safetensors"))
    with open(os.path.join(where, "case.json"), "w") as file:
        json.dump({"case": "gguf-k", "modelling_code": "transformers LlamaForCausalLM",
                   "types": {name: kind.name for name, _, kind, _ in BLOCKS}}, file, indent=1)
        file.write("\n")


main()
