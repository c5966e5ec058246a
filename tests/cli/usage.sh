#   Words that the program doesn't know, and help for those it does.
. tests/cli/lib.sh

expect 0 'verbs:' "$TRUNKLINE" --help
expect 0 '^trunkline [0-9]' "$TRUNKLINE" --version
expect 4 "expected a verb" "$TRUNKLINE"
expect 4 "'trian' is not a verb; write 'trunkline train'" "$TRUNKLINE" trian
expect 4 "'frobnicate' is not a verb; .trunkline --help. lists them" "$TRUNKLINE" frobnicate

"$TRUNKLINE" --help | sed -n '/^verbs:/,/^$/s/^  \([a-z-]*\) .*/\1/p' >verbs.txt
[ "$(wc -l <verbs.txt)" -ge 6 ] || fail "fewer verbs than there are"
while read -r verb; do
    expect 0 "usage: trunkline $verb" "$TRUNKLINE" "$verb" --help
    "$TRUNKLINE" "$verb" --help >long.txt
    "$TRUNKLINE" help "$verb" >short.txt
    cmp long.txt short.txt || fail "help $verb differs from $verb --help"
done <verbs.txt
expect 0 'verbs:' "$TRUNKLINE" help
expect 4 "'trian' is not a verb; write 'trunkline train'" "$TRUNKLINE" help trian

expect 4 "'--adaptor' is not an option; write --adapter" "$TRUNKLINE" eval --adaptor x
expect 4 "'-x' is not an option; .trunkline eval --help. lists them" "$TRUNKLINE" eval -x
expect 4 '\-\-format: expected text, json or jsonl, found .xml' "$TRUNKLINE" eval t.yaml --format xml
expect 4 '\-\-site wants a value' "$TRUNKLINE" train t.yaml --site
expect 4 'label-tokens: expected a whole number from 1' "$TRUNKLINE" train t.yaml --label-tokens -5
expect 4 'from 1 to 1048576, found .9999999' "$TRUNKLINE" generate t.yaml --prompt x --max-tokens 9999999
expect 4 "run: 'cleint' is not a role; write client" "$TRUNKLINE" run cleint t.yaml north
expect 4 "run: 'clown' is not a role; there are broker, aggregator, worker, client and load: write" "$TRUNKLINE" run clown t.yaml
make_topology t.yaml
expect 4 "t.yaml names no client 'nroth'; write north if that was meant" "$TRUNKLINE" run client t.yaml nroth
expect 4 "t.yaml names no worker 'x'; write w, its only one" "$TRUNKLINE" run worker t.yaml x
expect 4 "expected the client's name after t.yaml; write for example north" "$TRUNKLINE" run client t.yaml
expect 4 'a run of t.yaml has no aggregator, because nothing is averaged' "$TRUNKLINE" run aggregator t.yaml
expect 4 "'b' is one word too many, a topology has one broker" "$TRUNKLINE" run broker t.yaml b
expect 4 'train: expected TOPOLOGY, found nothing' "$TRUNKLINE" train
expect 4 "train: 'b' is one word too many" "$TRUNKLINE" train a b
expect 4 'absent.yaml' "$TRUNKLINE" check absent.yaml
expect 4 'either TOPOLOGY or --model' "$TRUNKLINE" eval
expect 4 'expected TOPOLOGY or --model PATH, and --prompt TEXT' "$TRUNKLINE" generate --prompt x
expect 0 'train.lr' "$TRUNKLINE" check --settings

#   A full disk is no success, in whatever form.
if [ -c /dev/full ]; then
    for verb in --help 'check --settings' 'check --settings --format json' 'check --settings --format jsonl'; do
        got=0
        "$TRUNKLINE" $verb >/dev/full 2>err.txt || got=$?
        [ $got -eq 1 ] || fail "$verb: a full disk ended with $got, expected 1"
        grep -q "stdout can't be written; free the disk" err.txt || fail "$verb: $(cat err.txt)"
    done
fi

#   A model where a topology belongs.
mkdir model
touch model.gguf
for model in model model.gguf; do
    expect 4 "$model is no topology.*--model" "$TRUNKLINE" generate $model --prompt ab
done
