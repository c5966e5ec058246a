#!/usr/bin/env python3
"""make_goldens: writes the small golden vectors under tests/golden/data/.

Tiny random models of every family, and what PyTorch computes from them in float64 (stored as fp32): hidden
rows, logits, loss, gradients, five steps of full tuning, ten of LoRA, and of P-tuning v2 where a family has it.
The layout is the one golden_check reads. Llama, Qwen2 and GLM-4 are transformers' classes; the blocks of
ChatGLM-6B and ChatGLM2 are written here in plain torch from their published description, so that none shares a
line with the engine under test.

Usage: make_goldens.py [DIRECTORY]     (needs torch, transformers, safetensors; deterministic)
"""

import json
import math
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from torch import nn

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

FULL = {"steps": 5, "warmup": 2, "lr": 1e-3}
PTUNING = {"pre_seq_len": 3, "prefix_projection": False, "steps": 10, "warmup": 2, "lr": 2e-2}
LORA = {"r": 3, "alpha": 6, "dropout": 0.0, "steps": 10, "warmup": 2, "lr": 2e-3}
OPTIMIZER = {"name": "torch.optim.AdamW", "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.02,
             "clip_max_norm": 0.5}


# ---------------------------------------------------------------------------------------------
# P-tuning v2

def behind(block, k, v, visible):
    """Keys and values [t, groups, d] behind the block's prefix, if it was given one; every row sees all of that."""
    prefix = getattr(block, "prefix", None)
    if prefix is None:
        return k, v, visible
    rows = prefix.shape[0]
    keys, values = prefix.view(rows, 2, *k.shape[1:]).unbind(1)
    seen = torch.ones(len(visible), rows, dtype=torch.bool)
    return torch.cat([keys, k]), torch.cat([values, v]), torch.cat([seen, visible], 1)


def give_prefix(model, prefix):
    """Columns of prefix [rows, blocks * 2 * kv] to the blocks, one after another."""
    layers = model.stations()[1]
    for layer, part in zip(layers, prefix.chunk(len(layers), 1)):
        layer.prefix = part


# ---------------------------------------------------------------------------------------------
# ChatGLM-6B

class ChatBlock(nn.Module):
    """y = alpha m + mlp (m), m = norm (alpha n + attention (n)), n = norm (x): residuals of normed rows."""

    def __init__(self, config):
        super().__init__()
        h, f, eps = config["hidden_size"], config["inner_hidden_size"], config["layernorm_epsilon"]
        self.heads, self.d = config["num_attention_heads"], h // config["num_attention_heads"]
        self.alpha = math.sqrt(2 * config.get("alpha_num_layers", 28))
        self.input_layernorm = nn.LayerNorm(h, eps=eps)
        self.attention = nn.Module()
        self.attention.query_key_value = nn.Linear(h, 3 * h)
        self.attention.dense = nn.Linear(h, h)
        self.post_attention_layernorm = nn.LayerNorm(h, eps=eps)
        self.mlp = nn.Module()
        self.mlp.dense_h_to_4h = nn.Linear(h, f)
        self.mlp.dense_4h_to_h = nn.Linear(f, h)

    def turn(self, x, positions):
        """Rotates the pairs (i, i + r/2) of x [T, heads, r] by position * 10000^(-2i/r), that rounded to fp16."""
        r = x.shape[-1]
        frequency = (1.0 / 10000 ** (torch.arange(0, r, 2, dtype=torch.float32) / r)).half().double()
        angle = positions.double()[:, None, None] * frequency
        low, high = x[..., : r // 2], x[..., r // 2:]
        return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], -1)

    def rotate(self, x, where):
        r = self.d // 2
        return torch.cat([self.turn(x[..., :r], where["position"]), self.turn(x[..., r:], where["block"])], -1)

    def forward(self, x, where):
        n = self.input_layernorm(x)
        t = x.shape[0]
        q, k, v = self.attention.query_key_value(n).view(t, self.heads, 3 * self.d).split(self.d, -1)
        q, k = self.rotate(q, where), self.rotate(k, where)
        k, v, visible = behind(self, k, v, where["visible"])
        score = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.d)
        score = score.masked_fill(~visible, float("-inf"))
        rows = torch.einsum("hqk,khd->qhd", score.softmax(-1), v).reshape(t, -1)
        m = self.post_attention_layernorm(self.alpha * n + self.attention.dense(rows))
        inner = nn.functional.gelu(self.mlp.dense_h_to_4h(m), approximate="tanh")
        return self.alpha * m + self.mlp.dense_4h_to_h(inner)


class Chat(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.word_embeddings = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.transformer.layers = nn.ModuleList(ChatBlock(config) for _ in range(config["num_layers"]))
        self.transformer.final_layernorm = nn.LayerNorm(config["hidden_size"], eps=config["layernorm_epsilon"])

    def stations(self):
        return self.transformer.word_embeddings, self.transformer.layers, self.transformer.final_layernorm

    def forward(self, sequence):
        x = self.transformer.word_embeddings(sequence["ids"])
        for layer in self.transformer.layers:
            x = layer(x, sequence)
        return self.transformer.final_layernorm(x) @ self.transformer.word_embeddings.weight.T


def chat_sequence(config, context, answer, cloze, draw):
    """context tokens, the last of them [gMASK] (or [MASK] inside when cloze), then sop, answer, eop."""
    ids = torch.randint(5, 30, (context + 1 + answer,), generator=draw)
    mask = context // 2 if cloze else context - 1
    ids[mask] = config["mask_token_id"] if cloze else config["gmask_token_id"]
    ids[context], ids[-1] = config["bos_token_id"], config["eos_token_id"]
    labels = ids.clone()
    labels[:context] = -100
    row = torch.arange(len(ids))
    return {"ids": ids, "labels": labels, "context": context, "mask": mask,
            "position": torch.where(row < context, row, mask),
            "block": (row - context + 1).clamp(min=0),
            "visible": (row[None, :] < context) | (row[None, :] <= row[:, None])}


# ---------------------------------------------------------------------------------------------
# ChatGLM2, ChatGLM3 and GLM-4 in their original layout

class RMSNorm(nn.Module):
    def __init__(self, h, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(h)), eps

    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


class GlmBlock(nn.Module):
    """y = m + down (silu (gate) * up) of norm (m), m = x + dense (attention (norm (x)))."""

    def __init__(self, config):
        super().__init__()
        h, f, eps = config["hidden_size"], config["ffn_hidden_size"], config["layernorm_epsilon"]
        self.heads, self.groups = config["num_attention_heads"], config["multi_query_group_num"]
        self.d, self.base = config["kv_channels"], 10000 * config.get("rope_ratio", 1)
        wide, narrow = self.heads * self.d, self.groups * self.d
        self.widths = [wide, narrow, narrow]
        self.input_layernorm = RMSNorm(h, eps)
        self.self_attention = nn.Module()
        self.self_attention.query_key_value = nn.Linear(h, sum(self.widths))
        self.self_attention.dense = nn.Linear(wide, h, bias=False)
        self.post_attention_layernorm = RMSNorm(h, eps)
        self.mlp = nn.Module()
        self.mlp.dense_h_to_4h = nn.Linear(h, 2 * f, bias=False)
        self.mlp.dense_4h_to_h = nn.Linear(f, h, bias=False)

    def turn(self, x, position):
        """Rotates the neighbours (2i, 2i + 1) of the first half of each head; the other half stays."""
        r = self.d // 2
        frequency = (1.0 / self.base ** (torch.arange(0, r, 2, dtype=torch.float32) / r)).double()
        angle = position.double()[:, None, None] * frequency
        even, odd = x[..., 0:r:2], x[..., 1:r:2]
        turned = torch.stack([even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()], -1)
        return torch.cat([turned.flatten(-2), x[..., r:]], -1)

    def forward(self, x, where):
        t = x.shape[0]
        q, k, v = self.self_attention.query_key_value(self.input_layernorm(x)).split(self.widths, -1)
        q = self.turn(q.view(t, self.heads, self.d), where["position"])
        k = self.turn(k.view(t, self.groups, self.d), where["position"])
        v = v.view(t, self.groups, self.d)
        k, v, visible = behind(self, k, v, torch.ones(t, t).tril().bool())
        k, v = (part.repeat_interleave(self.heads // self.groups, 1) for part in (k, v))
        score = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.d)
        score = score.masked_fill(~visible, float("-inf"))
        m = x + self.self_attention.dense(torch.einsum("hqk,khd->qhd", score.softmax(-1), v).reshape(t, -1))
        gate, up = self.mlp.dense_h_to_4h(self.post_attention_layernorm(m)).chunk(2, -1)
        return m + self.mlp.dense_4h_to_h(nn.functional.silu(gate) * up)


class Glm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.embedding = nn.Module()
        self.transformer.embedding.word_embeddings = nn.Embedding(config["padded_vocab_size"], config["hidden_size"])
        self.transformer.encoder = nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(GlmBlock(config) for _ in range(config["num_layers"]))
        self.transformer.encoder.final_layernorm = RMSNorm(config["hidden_size"], config["layernorm_epsilon"])
        self.transformer.output_layer = nn.Linear(config["hidden_size"], config["padded_vocab_size"], bias=False)

    def stations(self):
        inside = self.transformer
        return inside.embedding.word_embeddings, inside.encoder.layers, inside.encoder.final_layernorm

    def forward(self, sequence):
        x = self.transformer.embedding.word_embeddings(sequence["ids"])
        for layer in self.transformer.encoder.layers:
            x = layer(x, sequence)
        return self.transformer.output_layer(self.transformer.encoder.final_layernorm(x))


# ---------------------------------------------------------------------------------------------
# Hugging Face's classes

def hugging_face(name):
    import transformers
    base = getattr(transformers, f"{name}ForCausalLM")

    class Model(base):
        def stations(self):
            return self.model.embed_tokens, self.model.layers, self.model.norm

        def forward(self, sequence):
            return super().forward(input_ids=sequence["ids"][None]).logits[0]

    def make_model(config):
        return Model(getattr(transformers, f"{name}Config")(**config, attn_implementation="eager")).double()

    return make_model


def plain_sequence(vocab, context, answer, draw):
    ids = torch.randint(3, vocab, (context + answer,), generator=draw)
    labels = ids.clone()
    labels[:context] = -100
    return {"ids": ids, "labels": labels, "context": context, "position": torch.arange(len(ids))}


# ---------------------------------------------------------------------------------------------
# What is computed

class Low(nn.Module):
    """A linear with a LoRA pair beside it."""

    def __init__(self, linear, draw):
        super().__init__()
        self.linear = linear
        out, inside = linear.weight.shape
        self.a = nn.Parameter(torch.randn(LORA["r"], inside, generator=draw).float().double() * 0.3)
        self.b = nn.Parameter(torch.randn(out, LORA["r"], generator=draw).float().double() * 0.1)

    def forward(self, x):
        return self.linear(x) + LORA["alpha"] / LORA["r"] * (x @ self.a.T) @ self.b.T


def nll(logits, labels):
    shifted = labels[1:]
    keep = shifted >= 0
    return nn.functional.cross_entropy(logits[:-1][keep], shifted[keep], reduction="sum"), int(keep.sum())


def mean_loss(model, sequences):
    parts = [nll(model(sequence), sequence["labels"]) for sequence in sequences]
    return sum(p[0] for p in parts) / sum(p[1] for p in parts)


def rows(model, sequence):
    """Logits of one sequence and the rows at every station, their gradients kept."""
    caught, hooks = {}, []

    def catch(name):
        def hook(module, inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            output.retain_grad()
            caught[name] = output
        return hook

    embed, layers, norm = model.stations()
    hooks.append(embed.register_forward_hook(catch("embed")))
    hooks.append(norm.register_forward_hook(catch("final_norm")))
    hooks += [layer.register_forward_hook(catch(f"block.{k}")) for k, layer in enumerate(layers)]
    logits = model(sequence)
    for hook in hooks:
        hook.remove()
    return logits, caught


def trajectory(model, sequences, parameters, settings, clip=OPTIMIZER["clip_max_norm"]):
    """AdamW over the named parameters: their gradients at step 0, then what every step saw."""
    from transformers import get_linear_schedule_with_warmup
    values = list(parameters.values())
    for value in values:
        value.requires_grad_(True)
    optimizer = torch.optim.AdamW(values, lr=settings["lr"], betas=OPTIMIZER["betas"], eps=OPTIMIZER["eps"],
                                  weight_decay=OPTIMIZER["weight_decay"])
    schedule = get_linear_schedule_with_warmup(optimizer, settings["warmup"], settings["steps"])
    out, loss_of, norm_of, lr_of = {}, [], [], []
    for step in range(settings["steps"]):
        optimizer.zero_grad()
        loss = mean_loss(model, sequences)
        loss.backward()
        if step == 0:
            out.update({f"grad.{name}": value.grad.clone() for name, value in parameters.items()})
        loss_of.append(loss.item())
        norm_of.append(nn.utils.clip_grad_norm_(values, clip).item())
        lr_of.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    out["loss"], out["grad_norm"] = torch.tensor(loss_of), torch.tensor(norm_of)
    out["loss_final"] = mean_loss(model, sequences).detach().reshape(1)
    out = {name: value.detach().float() for name, value in out.items()}
    out["lr"] = torch.tensor(lr_of)
    return out


def integers(values):
    return torch.as_tensor(values).to(torch.int32)


def forward_backward(model, sequences, chat):
    forward, backward, sums, counts = {}, {}, [], []
    total = sum(int((s["labels"][1:] >= 0).sum()) for s in sequences)
    for i, sequence in enumerate(sequences):
        logits, caught = rows(model, sequence)
        loss, count = nll(logits, sequence["labels"])
        (loss / total).backward()
        for name, value in caught.items():
            value, grad = (t.reshape(-1, t.shape[-1]) for t in (value.detach(), value.grad))
            forward[f"hidden.{i}.{name}"] = value.float().clone()
            backward[f"grad_hidden.{i}.{name}"] = grad.float().clone()
        forward[f"logits.{i}"] = logits.detach().float()
        forward[f"input_ids.{i}"] = integers(sequence["ids"])
        forward[f"labels.{i}"] = integers(sequence["labels"])
        forward[f"position_ids.{i}"] = integers(sequence["position"])
        if chat:
            forward[f"block_position_ids.{i}"] = integers(sequence["block"])
        sums.append(loss.item())
        counts.append(count)
    forward["context_length"] = integers([s["context"] for s in sequences])
    if chat:
        forward["mask_position"] = integers([s["mask"] for s in sequences])
    forward["nll_sum"], forward["token_count"] = torch.tensor(sums).float(), integers(counts)
    forward["loss"] = torch.tensor([sum(sums) / total]).float()
    return forward, backward


def save_adapter(path, lows, targets):
    os.makedirs(path)
    tensors = {}
    for name, low in lows.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = low.a.detach().float().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = low.b.detach().float().contiguous()
    save_file(tensors, f"{path}/adapter_model.safetensors", {"format": "pt"})
    with open(f"{path}/adapter_config.json", "w") as file:
        json.dump({"base_model_name_or_path": "model", "bias": "none", "fan_in_fan_out": False,
                   "inference_mode": True, "init_lora_weights": True, "lora_alpha": LORA["alpha"],
                   "lora_dropout": 0.0, "peft_type": "LORA", "r": LORA["r"], "target_modules": targets,
                   "task_type": "CAUSAL_LM"}, file, indent=1)


def lora(model, sequences, targets, where, draw):
    for value in model.parameters():
        value.requires_grad_(False)
    lows = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.split(".")[-1] in targets:
            lows[name] = Low(module, draw)
            setattr(model.get_submodule(name.rpartition(".")[0]), name.split(".")[-1], lows[name])
    save_adapter(f"{where}/lora/init", lows, targets)
    logits = model(sequences[1]).detach().float()
    parameters = {}
    for name, low in lows.items():
        parameters[f"base_model.model.{name}.lora_A.weight"] = low.a
        parameters[f"base_model.model.{name}.lora_B.weight"] = low.b
    out = trajectory(model, sequences, parameters, LORA)
    out["logits.1"] = logits
    save_file(out, f"{where}/lora.safetensors")
    save_adapter(f"{where}/lora/final", lows, targets)


def ptuning(model, sequences, where, width, draw):
    """A prefix in front of every block, the model frozen; never clipped."""
    for value in model.parameters():
        value.requires_grad_(False)
    prefix = torch.randn(PTUNING["pre_seq_len"], width, generator=draw).float().double().requires_grad_(True)
    give_prefix(model, prefix)
    start, logits = prefix.detach().float().clone(), model(sequences[1]).detach().float()
    model.register_forward_pre_hook(lambda *_: give_prefix(model, prefix))
    out = trajectory(model, sequences, {"prefix": prefix}, PTUNING, math.inf)
    out["grad"] = out.pop("grad.prefix")
    out |= {"prefix.init": start, "logits.1": logits, "prefix.final": prefix.detach().float()}
    save_file(out, f"{where}/ptuning.safetensors")


def fill(model, dtype, draw):
    """Random weights, exactly representable in dtype."""
    for name, value in model.named_parameters():
        scale = 0.1 if value.dim() == 1 else 0.5 if "embed" in name else 1 / math.sqrt(value.shape[1])
        noise = torch.randn(value.shape, generator=draw) * scale
        if value.dim() == 1 and not name.endswith("bias"):
            noise += 1
        value.data = noise.to(dtype).double()


def make(where, config, make_model, sequences, dtype, targets, seed, prefix=0):
    """prefix: width of a block's keys, for families with P-tuning."""
    shutil.rmtree(where, ignore_errors=True)
    os.makedirs(f"{where}/model")
    draw = torch.Generator().manual_seed(seed)
    chat = "position_encoding_2d" in config
    model = make_model(config)
    fill(model, dtype, draw)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    with open(f"{where}/model/config.json", "w") as file:
        json.dump(config, file, indent=1)
    save_file({name: value.to(dtype) for name, value in start.items()}, f"{where}/model/model.safetensors",
              {"format": "pt"})
    forward, backward = forward_backward(model, sequences, chat)
    save_file(forward, f"{where}/forward.safetensors")
    save_file(backward, f"{where}/backward.safetensors")
    save_file(trajectory(model, sequences, dict(model.named_parameters()), FULL), f"{where}/full.safetensors")
    for name, value in model.named_parameters():
        value.data.copy_(start[name])
    lora(model, sequences, targets, where, draw)
    if prefix:
        model = make_model(config)
        model.load_state_dict(start)
        ptuning(model, sequences, where, config["num_layers"] * 2 * prefix, torch.Generator().manual_seed(1000 + seed))
    with open(f"{where}/case.json", "w") as file:
        json.dump({"case": os.path.basename(where), "seed": seed, "precision": "float64, stored as fp32",
                   "optimizer": OPTIMIZER, "full": FULL, "lora": {**LORA, "targets": targets},
                   **({"ptuning": PTUNING} if prefix else {}), "float64_difference": {}}, file, indent=1)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
    draw = torch.Generator().manual_seed(7)
    chat = {"architectures": ["ChatGLMModel"], "model_type": "chatglm", "position_encoding_2d": True,
            "vocab_size": 40, "hidden_size": 24, "num_layers": 2, "num_attention_heads": 2,
            "inner_hidden_size": 36, "layernorm_epsilon": 1e-5, "max_sequence_length": 64, "mask_token_id": 30,
            "gmask_token_id": 31, "bos_token_id": 34, "eos_token_id": 35, "pad_token_id": 3,
            "torch_dtype": "float16"}
    make(f"{root}/chatglm", chat, Chat,
         [chat_sequence(chat, 5, 3, False, draw), chat_sequence(chat, 7, 4, True, draw),
          chat_sequence(chat, 2, 6, False, draw), chat_sequence(chat, 9, 1, False, draw)],
         torch.float16, ["query_key_value", "dense_4h_to_h"], 21, prefix=24)
    one = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
           "mlp_bias": False, "hidden_act": "silu", "vocab_size": 40, "hidden_size": 24, "intermediate_size": 36,
           "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 6,
           "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 500.0,
           "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
           "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 60}}
    make(f"{root}/llama", one, hugging_face("Llama"),
         [plain_sequence(40, 6, 4, draw), plain_sequence(40, 1, 9, draw)],
         torch.bfloat16, ["q_proj", "v_proj", "gate_proj", "down_proj"], 22)
    glm = {"architectures": ["ChatGLMModel"], "model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True,
           "apply_query_key_layer_scaling": True, "multi_query_attention": True, "multi_query_group_num": 2,
           "original_rope": True, "post_layer_norm": True, "rmsnorm": True, "rope_ratio": 3,
           "padded_vocab_size": 32, "hidden_size": 16, "num_layers": 2, "num_attention_heads": 4, "kv_channels": 8,
           "ffn_hidden_size": 20, "layernorm_epsilon": 1e-5, "seq_length": 64, "eos_token_id": [2, 5],
           "pad_token_id": 0, "tie_word_embeddings": False, "torch_dtype": "float16"}
    make(f"{root}/glm", glm, Glm, [plain_sequence(32, 5, 4, draw), plain_sequence(32, 2, 6, draw)],
         torch.float16, ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], 23, prefix=16)
    common = {"hidden_act": "silu", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 20,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "max_position_embeddings": 64, "eos_token_id": 2, "pad_token_id": 0}
    hf = {"architectures": ["GlmForCausalLM"], "model_type": "glm", **common, "attention_bias": True, "head_dim": 8,
          "num_attention_heads": 2, "num_key_value_heads": 1,
          "rms_norm_eps": 1.5625e-07, "partial_rotary_factor": 0.5, "rope_theta": 5000.0,
          "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    make(f"{root}/glm-hf", hf, hugging_face("Glm"), [plain_sequence(32, 4, 5, draw), plain_sequence(32, 1, 7, draw)],
         torch.bfloat16, ["q_proj", "k_proj", "o_proj", "gate_up_proj"], 24)
    qwen2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **common, "rms_norm_eps": 1e-6,
             "rope_theta": 1000000.0, "sliding_window": 32, "use_sliding_window": False, "tie_word_embeddings": False,
             "torch_dtype": "float32"}
    make(f"{root}/qwen2", qwen2, hugging_face("Qwen2"),
         [plain_sequence(32, 4, 5, draw), plain_sequence(32, 1, 7, draw)],
         torch.float32, ["q_proj", "v_proj", "up_proj"], 25)
    mistral = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", **common, "head_dim": 6,
               "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": None, "tie_word_embeddings": False,
               "torch_dtype": "bfloat16"}
    make(f"{root}/mistral", mistral, hugging_face("Mistral"),
         [plain_sequence(32, 4, 5, draw), plain_sequence(32, 1, 7, draw)],
         torch.bfloat16, ["k_proj", "o_proj"], 26)


main()
