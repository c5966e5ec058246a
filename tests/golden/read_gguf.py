"""read_gguf.py SOURCE OUT TYPE: holds a GGUF file that `trunkline quantize SOURCE OUT --type TYPE` wrote against the
package gguf: its reader takes the file, and every tensor is what the package makes of SOURCE's (a GGUF file, too).
Exit code 0 when all is the same to the bit, 1 otherwise, 77 without the package."""

import sys

try:
    import numpy
    from gguf import GGMLQuantizationType as Type
    from gguf import GGUFReader, dequantize, quantize
except ImportError as problem:
    print(f"skipped: {problem}; install the Python package gguf, or set TL_PYTHON")
    sys.exit(77)

source, out = GGUFReader(sys.argv[1]), GGUFReader(sys.argv[2])
wanted = Type[sys.argv[3].upper()]


def values(tensor):
    return dequantize(tensor.data, tensor.tensor_type)


def target(name, tensor):
    if len(tensor.shape) == 1:
        return Type.F32
    kind = Type.Q8_0 if wanted in (Type.Q4_0, Type.Q4_1) and name in ("token_embd.weight", "output.weight") else wanted
    block = 32 if kind in (Type.Q8_0, Type.Q4_0, Type.Q4_1) else 1
    return kind if tensor.shape[0] % block == 0 else Type.F16


bad = 0
theirs = {tensor.name: tensor for tensor in source.tensors}
if sorted(theirs) != sorted(tensor.name for tensor in out.tensors):
    print("other tensors")
    bad += 1
for tensor in out.tensors:
    original = theirs[tensor.name]
    kind = target(tensor.name, original)
    expected = values(original).astype(numpy.float32)
    if kind == original.tensor_type:
        narrow = original.data
    elif kind == Type.F32:
        narrow = expected
    else:
        narrow = quantize(expected, kind)
    same = tensor.tensor_type == kind and list(tensor.shape) == list(original.shape) and \
        numpy.array_equal(numpy.ascontiguousarray(tensor.data).view(numpy.uint8).ravel(),
                          numpy.ascontiguousarray(narrow).view(numpy.uint8).ravel())
    if not same:
        print(f"{tensor.name}: expected {kind.name} {list(original.shape)}, got {tensor.tensor_type.name} "
              f"{list(tensor.shape)}, or other values")
        bad += 1
for key, field in source.fields.items():
    if key.startswith("GGUF.") or key in ("general.file_type", "general.quantization_version", "general.alignment"):
        continue
    if key not in out.fields or field.contents() != out.fields[key].contents():
        print(f"{key} was not taken over")
        bad += 1
print(f"{sys.argv[2]}: {len(out.tensors)} tensors, {bad} problems")
sys.exit(1 if bad else 0)
