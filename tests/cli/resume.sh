#   A run that kill -9 ended goes on from its last save as if nothing had been: the same losses, norms, rates and
#   adapter, bit for bit, under whatever settings.
. tests/cli/lib.sh
make_site_files

run () {
    out=$1
    shift
    $exec "$TRUNKLINE" train t.yaml --site north --out "$out" --format jsonl --set train.steps=200 \
        --set train.micros=3 --set train.schedule=cosine --set train.warmup=5 "$@"
}
#   What every step came to, once.
figures () {
    sed -n 's/^{"step":\([0-9]*\),\("loss":.*\),"seconds".*/\1 \2/p' "$@" | sort -n -u
}

mkfifo steps
exec=
for settings in "tune.dropout=0.2" "tune.rslora=true --set tune.freeze=blocks.1" \
    "tune.method=full --set tune.freeze=norms --set train.lr_min=1e-3"; do
    run a --set checkpoint.every=1000 --set $settings >a.jsonl 2>/dev/null
    #  The lines of 200 steps are more than this pipe holds (F_SETPIPE_SZ) and head takes: the run can't end before it
    #  is killed.
    exec 4<>steps
    perl -e 'open my $pipe, "+<&=", 4; fcntl ($pipe, 1031, 4096) or die "$!"'
    { exec=exec; run b --set checkpoint.every=20 --set $settings; } >steps 2>/dev/null & #  its process is the program's
    killed=$!
    exec 3<steps
    head -n 50 <&3 >b.jsonl
    kill -9 $killed || fail "the run was over before it could be killed"
    wait $killed && fail "a killed run ended well"
    exec 3<&- 4<&-
    [ -f b/adapter/adapter_config.json ] && fail "a killed run saved an adapter"
    run b --resume --set checkpoint.every=1000 --set $settings >c.jsonl 2>c.err || fail "$(cat c.err)"
    grep -q 'goes on after step' c.err || fail "nothing was resumed: $(cat c.err)"
    [ "$(figures c.jsonl | wc -l)" -lt 200 ] || fail "everything was done again"
    figures a.jsonl >a.steps
    figures b.jsonl c.jsonl >b.steps
    grep -v -x -F -f a.steps b.steps && fail "$settings: steps differ from those of an undisturbed run"
    for file in a/adapter/*.safetensors; do
        cmp "$file" "b/adapter/${file##*/}" || fail "$settings: the adapters differ"
    done
    rm -r a b
done
