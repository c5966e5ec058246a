#   Bad input gets a sentence that names it, and exit code 4; never a crash.
. tests/cli/lib.sh
make_site_files
train () {
    "$TRUNKLINE" train t.yaml --out o "$@"
}

#   The model.
mv model/model.safetensors kept
expect 4 'model' train
head -c 5000 kept >model/model.safetensors
expect 4 'model.safetensors' train
: >model/model.safetensors
expect 4 'model.safetensors' train
cp kept model/model.safetensors
sed 's/"hidden_size": 32/"hidden_size": 64/' model.config/config.json >model/config.json
expect 4 'word_embeddings' train
sed 's/"num_layers": 3/"num_layers": 4/' model.config/config.json >model/config.json
expect 4 'layers.3' train
echo '{"model_type": ' >model/config.json
expect 4 'config.json' train
rm model/config.json
expect 4 'config.json' train
cp model.config/config.json model/
expect 4 'leave no block for the trunk' "$TRUNKLINE" check t.yaml --set split.front=2
expect 4 'made for 256 positions' "$TRUNKLINE" check t.yaml --set train.max_length=300
expect 4 'no_such' train --set tune.targets=no_such

#   The tokenizer: absent, broken, of another model.
mv model/ice_text.model kept.model
expect 4 'ice_text.model\|tokenizer.model' train
echo broken >model/ice_text.model
expect 4 'ice_text.model' train
sed 's/"vocab_size": 4096/"vocab_size": 512/' model.config/config.json >small.json
mkdir small.config
cp small.json small.config/config.json
cp kept.model small.config/ice_text.model
"$TRUNKLINE" make-model small.config small >/dev/null
expect 4 'ice_text.model' train --set model.path=small
cp kept.model model/ice_text.model

#   The text.
good='{"prompt": "a", "completion": "b"}'
printf '%s\n{"prompt": "a", "completion": }\n' "$good" >bad.jsonl
expect 4 't.yaml: client.south.data: bad.jsonl:2' train --set clients.1.data=bad.jsonl
printf '%s\n%s\n{"prompt": "a", "completion": "\377"}\n' "$good" "$good" >bad.jsonl
expect 4 'bad.jsonl:3' train --set clients.1.data=bad.jsonl
printf '{"prompt": 3, "completion": "b"}\n' >bad.jsonl
expect 4 'bad.jsonl:1' train --set clients.1.data=bad.jsonl
printf '{"colour": "a"}\n' >bad.jsonl
expect 4 'bad.jsonl:1' train --set clients.1.data=bad.jsonl
: >bad.jsonl
expect 4 'bad.jsonl' train --set clients.1.data=bad.jsonl
expect 4 't.yaml: client.south.eval: absent.jsonl can' "$TRUNKLINE" check t.yaml --set clients.1.eval=absent.jsonl
long=$(yes word | head -n 200 | tr '\n' ' ')
printf '{"prompt": "a", "completion": "%s"}\n%s\n' "$long" "$good" >long.jsonl
expect 0 '1 of 2 examples' "$TRUNKLINE" train t.yaml --out o --set clients.1.data=long.jsonl --set train.steps=1

#   The topology: each sentence is held by test_topology; here that it is the program's.
sed 's/steps/stpes/' t.yaml >typo.yaml
expect 4 '^trunkline: typo.yaml:4:9: .stpes. is not a key' "$TRUNKLINE" train typo.yaml
printf '%%YAML 3.0\n---\nversion: 1\n' >later.yaml
expect 4 '^trunkline: later.yaml:1:1: ' "$TRUNKLINE" check later.yaml
[ "$(wc -l <err.txt)" -eq 1 ] || fail "more than one sentence: $(cat err.txt)"
mkfifo pipe.yaml
expect 4 'pipe.yaml is not a plain file' "$TRUNKLINE" check pipe.yaml
expect 4 'path of a file is empty' "$TRUNKLINE" check ''
expect 4 "^trunkline: --set train.lr: expected a number" train --set train.lr=much
expect 4 "no client 'west'" train --site west

#   What a check finds: how much of the text is cut off, that nothing could be saved, whose key is missing and how it is made.
"$TRUNKLINE" keys make t.yaml --set keys=other >/dev/null
expect 0 'long.jsonl: 2 examples, [0-9]* label tokens, 1 of them shortened to train.max_length 64' \
    "$TRUNKLINE" check t.yaml --set keys=other --set clients.1.data=long.jsonl
expect 4 "t.yaml: checkpoint.dir: north.jsonl is not a directory, so nothing can be saved in north.jsonl/runs/t; " \
    "$TRUNKLINE" check t.yaml --set keys=other --set checkpoint.dir=north.jsonl/runs
rm other/client.south.*
expect 4 'other/client.south.secret can.t be read .*trunkline keys make --dir other client.south' \
    "$TRUNKLINE" check t.yaml --set keys=other
[ ! -e runs ] || fail "a check made the directory of the run"

#   An adapter that doesn't fit.
train >/dev/null 2>&1
expect 4 'rank\|shape' "$TRUNKLINE" eval t.yaml --set tune.parts=trunk --set tune.rank=4 --adapter o/adapter
expect 4 'holds neither' "$TRUNKLINE" eval t.yaml --adapter .
head -c 100 o/adapter/adapter_model.safetensors >cut
cp cut o/adapter/adapter_model.safetensors
expect 4 'adapter_model.safetensors' "$TRUNKLINE" eval t.yaml --adapter o/adapter

#   Weights that are no numbers: neither verb makes anything of them.
cp -r model broken
printf '\000\000\300\177' | dd of=broken/model.safetensors bs=1 conv=notrunc 2>dd.txt \
    seek=$(($(stat -c %s broken/model.safetensors) - 4))
expect 4 'the loss is -*nan; .*train it again' "$TRUNKLINE" eval --model broken --data north.eval.jsonl
expect 4 'logits of token 1 of the text are not finite; .*train it again' \
    "$TRUNKLINE" generate --model broken --prompt x

#   A loss that is no number ends the run with the step, and what was learnt before stays.
expect 4 'step [0-9]*: ' "$TRUNKLINE" train t.yaml --out nan --set train.lr=1000 --set train.clip=0 \
    --set tune.alpha=1000000 --set train.steps=200
grep -q 'last good step' err.txt || fail "no word about the adapter: $(cat err.txt)"
[ -f nan/adapter/adapter_model.safetensors ] || fail "the last good adapter is gone"
