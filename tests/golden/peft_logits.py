"""peft_logits.py MODEL ADAPTER MERGED LOGITS.safetensors: loads the adapter with peft onto the model with
transformers, and the merged model with transformers alone, both unchanged, and compares logits with those that
Trunkline wrote (tensors ids [T] and logits [T, V]). Prints the largest differences. Exit code 0 when they are within
1e-5 of the largest logit, 1 otherwise, 77 without peft."""

import json
import struct
import sys
import warnings

try:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
except ImportError as problem:
    print(f"skipped: {problem}; install torch, transformers and peft, or set TL_PYTHON")
    sys.exit(77)


def read(path):
    """Every tensor of a small .safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = {"F32": torch.float32, "I32": torch.int32}[entry["dtype"]]
            part = bytearray(data[8 + length + begin : 8 + length + end])
            tensors[name] = torch.frombuffer(part, dtype=dtype).reshape(entry["shape"])
    return tensors


def logits_of(model):
    with torch.no_grad():
        return model(ours["ids"].long()[None]).logits[0]


model_path, adapter_path, merged_path, logits_path = sys.argv[1:]
torch.set_num_threads(1)
ours = read(logits_path)
base = AutoModelForCausalLM.from_pretrained(model_path, torch_dtype=torch.float32)
plain = logits_of(base)
warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
theirs = logits_of(PeftModel.from_pretrained(base, adapter_path))
merged = logits_of(AutoModelForCausalLM.from_pretrained(merged_path, torch_dtype="auto"))
largest = theirs.abs().max().item()
moved = (theirs - plain).abs().max().item()
worst = 0
for name, logits in (("adapter", theirs), ("merged", merged)):
    difference = (logits - ours["logits"]).abs().max().item()
    worst = max(worst, difference)
    print(f"{name}: largest logit {largest:.4f}, difference {difference:.3g}, moved {moved:.3g}")
if moved < 1e-3:
    print("the adapter does nothing: it was not loaded")
    sys.exit(1)
sys.exit(0 if worst <= 1e-5 * largest else 1)
