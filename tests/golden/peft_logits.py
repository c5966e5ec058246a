"""peft_logits.py MODEL ADAPTER LOGITS.safetensors: loads the adapter with peft onto the model with transformers,
unchanged, and compares logits with those that Trunkline wrote (tensors ids [T] and logits [T, V]). Prints the
largest difference. Exit code 0 when it is within 1e-4 of the largest logit, 1 otherwise, 77 without peft."""

import json
import struct
import sys

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


model_path, adapter_path, logits_path = sys.argv[1:]
torch.set_num_threads(1)
ours = read(logits_path)
base = AutoModelForCausalLM.from_pretrained(model_path, torch_dtype=torch.float32)
with torch.no_grad():
    plain = base(ours["ids"].long()[None]).logits[0]
    model = PeftModel.from_pretrained(base, adapter_path)
    theirs = model(ours["ids"].long()[None]).logits[0]
difference = (theirs - ours["logits"]).abs().max().item()
largest = theirs.abs().max().item()
moved = (theirs - plain).abs().max().item()
print(f"largest logit {largest:.4f}, difference {difference:.3g}, the adapter moves {moved:.3g}")
if moved < 1e-3:
    print("the adapter does nothing: it was not loaded")
    sys.exit(1)
sys.exit(0 if difference <= 1e-4 * largest else 1)
