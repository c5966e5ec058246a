#   trunkline quantize: what it writes, what it refuses, and that nothing half-written stays. Where Python has the
#   package gguf ($TL_PYTHON names another Python), its reader takes every file, bit for bit.
. tests/cli/lib.sh

source=$root/tests/golden/data/gguf-k/gguf/tiny-mixed.gguf
cp "$source" source.gguf
checked=yes
for type in q8_0 q4_0 q4_1 f16 bf16 f32; do
    expect 0 "out.gguf: 11 tensors, [0-9]* in [a-z]*${type#f}" "$TRUNKLINE" quantize source.gguf out.gguf --type $type
    code=0
    "${TL_PYTHON:-python3}" "$root/tests/golden/read_gguf.py" source.gguf out.gguf $type >py.txt 2>&1 || code=$?
    case $code in
    0) ;;
    77 | 127) checked=no ;;
    *) cat py.txt; fail "gguf-py reads other values out of a $type file" ;;
    esac
done
expect 0 '"type":"q4_0"' "$TRUNKLINE" quantize source.gguf out.gguf --type int4 --format json
expect 0 'q8_0' "$TRUNKLINE" quantize source.gguf out.gguf --type int8
cp out.gguf before.gguf
chmod 600 source.gguf
expect 0 'q8_0' "$TRUNKLINE" quantize source.gguf mine.gguf
[ "$(stat -c %a mine.gguf)" = 600 ] || fail "a private model became readable"

expect 4 "expected q8_0 (int8), q4_0 (int4)" "$TRUNKLINE" quantize source.gguf out.gguf --type q5_1
expect 4 "is the model itself" "$TRUNKLINE" quantize source.gguf ./source.gguf
expect 4 "absent" "$TRUNKLINE" quantize absent out.gguf
expect 4 "expected MODEL OUT.gguf" "$TRUNKLINE" quantize source.gguf
make_model chatglm
expect 4 "GGUF has no architecture for a chatglm model" "$TRUNKLINE" quantize chatglm new.gguf
expect 1 "nowhere" "$TRUNKLINE" quantize source.gguf nowhere/new.gguf
head -c 2000 source.gguf >cut.gguf
expect 4 "cut.gguf: .*truncated" "$TRUNKLINE" quantize cut.gguf new.gguf
cmp out.gguf before.gguf || fail "a refused run touched the file that was there"
for left in new.gguf* out.gguf.*; do
    [ ! -e "$left" ] || fail "$left was left behind"
done

[ $checked = yes ] || { echo "skipped: comparing with the Python package gguf, which is not installed"; }
echo "quantize writes what it says"
