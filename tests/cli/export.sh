#   What was trained, for other programs. That peft and transformers agree is test_adapter_peft's business.
. tests/cli/lib.sh
make_site_files
export_ () {
    "$TRUNKLINE" export "$@"
}
score () {
    "$TRUNKLINE" eval --data north.eval.jsonl --format jsonl "$@" | sed 's/.*"loss": *\([^,]*\),.*/\1/'
}
near () {
    awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(d < 1e-5 && d > -1e-5) }' || fail "losses $1 and $2"
}

#   A split run of one site, over its own processes: its saved parts become one adapter, that of training in one place.
read -r control clients workers <<END
$("$TL_TESTS/free_ports" 3)
END
sed -e '/south/d' -e 's/wire:.*//' t.yaml >one.yaml
cat >>one.yaml <<END
wire: {dtype: fp32}
broker: {control: "tcp://127.0.0.1:$control", clients: "tcp://127.0.0.1:$clients", workers: "tcp://127.0.0.1:$workers"}
END
"$TRUNKLINE" train one.yaml >/dev/null 2>&1
expect 4 'runs/t/north/adapter isn.t there' export_ one.yaml --as peft --out joined
expect 0 'adapters and summary.json' "$TRUNKLINE" up one.yaml
expect 0 'joined: an adapter for peft, 6 trained tensors' export_ one.yaml --as peft --out joined
cmp joined/adapter_model.safetensors runs/t/train/adapter/adapter_model.safetensors
cmp joined/adapter_config.json runs/t/train/adapter/adapter_config.json
near "$(score --model model --adapter joined)" "$(score --model model --adapter runs/t/train/adapter)"

#   Merged: a model of its own, tokenizer included, in files of a million bytes, or as the base stores it.
expect 0 'a Hugging Face model' export_ one.yaml --as hf --out merged --shard-mb 1 --dtype fp32
cmp model/ice_text.model merged/ice_text.model
for file in joined merged; do
    [ "$(find $file -name '*.safetensors' -perm 0600 | wc -l)" = "$(ls $file | grep -c 'safetensors$')" ] ||
        fail "others may read what was trained: $(ls -l $file)"
done
near "$(score --model merged)" "$(score --model model --adapter joined)"
expect 0 '"trained_tensors": *6' export_ --model model --adapter joined --as hf --out half --dtype fp16 --format json
grep -q '"torch_dtype": "float16"' half/config.json || fail "config.json of fp16: $(cat half/config.json)"

#   Full tuning saves what is trained, and no more; merged it is whole.
"$TRUNKLINE" train one.yaml --out f --set tune.method=full --set tune.freeze=[embedding,blocks.0] >/dev/null 2>&1
[ ! -e f/adapter/ice_text.model ] || fail "a part of a model got a tokenizer"
grep -a -q word_embeddings f/adapter/model.safetensors && fail "the frozen embedding was saved"
expect 0 'a Hugging Face model' export_ --model model --adapter f/adapter --as hf --out full
near "$(score --model full)" "$(score --model model --adapter f/adapter)"
expect 4 'these are full weights' export_ --model model --adapter f/adapter --as peft --out x

#   What can't be.
expect 4 'llama.cpp knows no chatglm' export_ one.yaml --as gguf-lora --out x
expect 4 'expected peft' export_ one.yaml --as onnx --out x
expect 4 'expected --out' export_ one.yaml --as hf
expect 4 'found neither' export_ --as hf --out x
expect 4 'found both' export_ one.yaml --model model --as hf --out x
expect 4 "found 'int3'" export_ one.yaml --as hf --dtype int3 --out x
expect 4 'leave them out' export_ one.yaml --as peft --dtype fp16 --out x
expect 4 "no client 'west'" export_ one.yaml --site west --as peft --out x
expect 4 'say which with --site' export_ t.yaml --as peft --out x
expect 4 'joined exists' export_ one.yaml --as peft --out joined
expect 0 'joined' export_ one.yaml --as peft --out joined --force
expect 4 'holds the model' export_ --model model --adapter joined --as hf --out model --force
expect 4 'holds the model' export_ --model model --adapter joined --as hf --out . --force
mkdir other
echo mine >other/file
expect 4 'no directory of a model' export_ one.yaml --as hf --out other --force
[ -f other/file ] || fail "somebody's file is gone"
head -c 300 joined/adapter_model.safetensors >cut
cp cut joined/adapter_model.safetensors
expect 4 'joined/adapter_model.safetensors' export_ --model model --adapter joined --as peft --out x
rm -r runs/t/w
expect 4 'runs/t/w/adapter isn.t there' export_ one.yaml --as peft --out x
[ ! -e x ] && [ ! -e x.tmp ] || fail "something was written all the same"
