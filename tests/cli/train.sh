#   train, eval and generate on a model of three tiny blocks.
. tests/cli/lib.sh
make_site_files

#   Six steps, a line each with all digits, then the outcome; the adapter and the last two saves are there.
"$TRUNKLINE" train t.yaml --format jsonl >a.jsonl 2>a.err
[ "$(grep -c '"loss"' a.jsonl)" -eq 6 ] || fail "expected 6 step lines, got $(cat a.jsonl)"
tail -n 1 a.jsonl | grep -q '"done":true' || fail "no outcome: $(tail -n 1 a.jsonl)"
grep -q 'memory plan: ' a.err && grep -q 'memory peak: ' a.err || fail "no memory plan: $(cat a.err)"
[ -f runs/t/train/adapter/adapter_model.safetensors ] || fail "no adapter"
[ "$(ls -d runs/t/train/step-* | tr '\n' ' ')" = \
  "runs/t/train/step-000000004 runs/t/train/step-000000006 " ] || fail "saves: $(ls runs/t/train)"

losses () {
    sed -n 's/.*"step":\([0-9]*\),"loss":\([^,]*\).*/\1 \2/p' "$1"
}

#   The same again is the same, bit for bit; also when it was stopped in between. The first line of the
#   stopped run says that a step is done: then it gets its SIGTERM.
"$TRUNKLINE" train t.yaml --out b --format jsonl >b.jsonl 2>/dev/null
[ "$(losses a.jsonl)" = "$(losses b.jsonl)" ] || fail "two runs differ"
cmp runs/t/train/adapter/adapter_model.safetensors b/adapter/adapter_model.safetensors

mkfifo steps
"$TRUNKLINE" train t.yaml --set train.steps=1000000 --set train.schedule=constant --out d \
    --format jsonl >steps 2>d.err &
stopped=$!
exec 3<steps
read -r line <&3
kill -TERM $stopped
cat <&3 >d.jsonl
wait $stopped || fail "a stopped run ended with $?: $(cat d.err)"
grep -q '"done":false' d.jsonl || fail "a stopped run says no such thing: $line $(cat d.jsonl)"
at=$(sed -n 's/.*"done":false.*"step": *\([0-9]*\).*/\1/p' d.jsonl)
at=$((at + 3))
"$TRUNKLINE" train t.yaml --set train.steps=$at --set train.schedule=constant --out d --resume \
    >/dev/null 2>&1
"$TRUNKLINE" train t.yaml --set train.steps=$at --set train.schedule=constant --out e >/dev/null 2>&1
cmp d/adapter/adapter_model.safetensors e/adapter/adapter_model.safetensors

#   A run goes on only under what its save was made with; more steps are fine. What is saved is its owner's alone.
cp north.jsonl kept.jsonl
resume () {
    "$TRUNKLINE" train t.yaml --set train.steps=8 --out b --resume "$@"
}
expect 4 'origin.json: the save was made with train.lr 0.01, and now it is 0.5; ' resume --set train.lr=0.5
expect 4 'the save was made with tune.targets left out, and now it is dense; ' resume --set 'tune.targets=dense'
expect 4 'the save was made with text of south [0-9a-f]*, and now it is left out; ' resume --site north
make_text north.jsonl 21 animal
expect 4 'the save was made with text of north [0-9a-f]*, and now it is [0-9a-f]*; go on with' resume
mv kept.jsonl north.jsonl
expect 0 'done after step 8 of 8' resume --set train.memory_mb=64
for file in b/step-*/part-*.state b/step-*/origin.json b/adapter/*; do
    [ "$(stat -c %a "$file")" = 600 ] || fail "$file has mode $(stat -c %a "$file"), expected 600"
done

mkdir -p half/step-000000003
expect 4 'half/step-000000003/progress isn.t there: the save is not whole; remove its directory' \
    "$TRUNKLINE" train t.yaml --out half --resume

#   Label tokens are spent exactly.
"$TRUNKLINE" train t.yaml --out f --label-tokens 321 --format json >f.json 2>/dev/null
grep -q '"label_tokens": 321' f.json || fail "expected 321 label tokens: $(cat f.json)"

#   Training helps on its own kind; one site alone, parts, and full tuning run too.
"$TRUNKLINE" train t.yaml --set train.steps=40 --site north --out g >/dev/null 2>&1
loss () {
    "$TRUNKLINE" eval t.yaml --site north --format jsonl "$@" | sed 's/.*"loss": *\([^,]*\),.*/\1/; q'
}
awk -v before="$(loss)" -v after="$(loss --adapter g/adapter)" 'BEGIN { exit !(after < before) }' ||
    fail "training did not help: $(loss) to $(loss --adapter g/adapter)"
"$TRUNKLINE" train t.yaml --set tune.parts=trunk --out h >/dev/null 2>&1
expect 0 'all' "$TRUNKLINE" eval t.yaml --set tune.parts=trunk --adapter h/adapter
"$TRUNKLINE" train t.yaml --set tune.method=full --set train.lr=1e-3 --out i >/dev/null 2>&1
expect 0 'trained' "$TRUNKLINE" make-model model.config made --trained i/adapter --dtype fp32
[ "$("$TRUNKLINE" eval --model made --data north.eval.jsonl)" = \
  "$("$TRUNKLINE" eval --model model --adapter i/adapter --data north.eval.jsonl)" ] ||
    fail "a made model differs from its adapter"

#   A run that has ended can be lengthened; an older run is named before it is replaced; an adapter alone is no run.
"$TRUNKLINE" train t.yaml --set train.steps=5 --set train.schedule=constant --out j >/dev/null 2>&1
"$TRUNKLINE" train t.yaml --set train.steps=8 --set train.schedule=constant --out k >/dev/null 2>&1
expect 0 'after step 8 of 8' "$TRUNKLINE" train t.yaml --set train.steps=8 --set train.schedule=constant --out j --resume
cmp j/adapter/adapter_model.safetensors k/adapter/adapter_model.safetensors || fail "a lengthened run differs"
"$TRUNKLINE" train t.yaml --set train.steps=2 --out k >/dev/null 2> k.err
grep -q 'replaces the run in k, step 8;' k.err || fail "nothing said about the older run: $(cat k.err)"
state=$(ls k/step-*/part-0.state | tail -n 1)
flip "$state"
expect 4 "$state is damaged, .*use an earlier save: remove its directory to go on from the one before" \
    "$TRUNKLINE" train t.yaml --set train.steps=2 --out k --resume
limited () {
    (ulimit -f 8 && exec "$TRUNKLINE" train t.yaml --set train.steps=2 --out full)
}
expect 1 'part-0.state can.t be written (File too large); check free space and permissions: then go on with --resume' limited
rm -r k/step-*
expect 4 'no save to go on from' "$TRUNKLINE" train t.yaml --set train.steps=2 --out k --resume

#   Greedy is greedy; a seed is a seed; top-k 1 is greedy however hot.
generate () {
    "$TRUNKLINE" generate --model model --adapter g/adapter --prompt 'animal 3, noun' --max-tokens 8 "$@"
}
[ "$(generate)" = "$(generate)" ] || fail "greedy differs"
[ "$(generate)" = "$(generate --temperature 5 --top-k 1)" ] || fail "top-k 1 is not greedy"
hot='--temperature 3 --top-p 0.9 --format json'
ids () {
    sed -n '/"ids"/,/\]/p'
}
[ "$(generate $hot --seed 4 | ids)" = "$(generate $hot --seed 4 | ids)" ] || fail "a seed differs"
[ "$(generate $hot --seed 4 | ids)" != "$(generate $hot --seed 5 | ids)" ] || fail "seeds agree"
expect 4 'shorten it' "$TRUNKLINE" generate --model model --prompt "$(yes word | head -n 300)"
