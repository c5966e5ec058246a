#   What `up` and `down` say of what was, is and isn't there.
. tests/cli/lib.sh
make_site_files
ports=$(free_ports)

expect 0 'made 5 key pairs in keys' "$TRUNKLINE" up t.yaml $ports
grep -q 'adapters and summary.json are in runs/t' err.txt || fail "not said where it is saved: $(cat err.txt)"
grep -q 'replaces' err.txt && fail "a first run replaces nothing: $(cat err.txt)"
expect 0 'replaces the run saved in runs/t, step 6; .*another name: --set name=t-2' "$TRUNKLINE" up t.yaml $ports
expect 0 'adapters and summary.json are in runs/t-2' "$TRUNKLINE" up t.yaml $ports --set name=t-2
grep -q 'replaces' err.txt && fail "another name replaces nothing: $(cat err.txt)"
for file in runs/t/*/save-*.state runs/t/*/adapter/*; do
    [ "$(stat -c %a "$file")" = 600 ] || fail "$file has mode $(stat -c %a "$file"), expected 600"
done

#   A longer run goes on from where the shorter one was: steps count from the run's beginning, and what counts from there
#   on says so.
expect 0 'from step 6 on' "$TRUNKLINE" up t.yaml $ports --set name=t-2 --set train.steps=9 --resume
for site in north south; do
    grep -q "^$site  *9 " out.txt || fail "the table lacks nine steps of $site: $(cat out.txt)"
    grep -q "$site  *step 9/9 .*held-out perplexity" err.txt || fail "$site didn't come to step 9: $(cat err.txt)"
done
[ "$(grep -c '"steps": 9' runs/t-2/summary.json)" = 3 ] || fail "$(cat runs/t-2/summary.json)"
grep -q '"resumed_round": 6' runs/t-2/summary.json || fail "$(cat runs/t-2/summary.json)"

#   What --saved reads is what was saved, or nothing: never the untrained model in its place.
saved () {
    expect "$1" "$2" "$TRUNKLINE" eval t.yaml --saved --site north --set name=t-2
    expect "$1" "$3" "$TRUNKLINE" generate t.yaml --saved --site north --prompt x --max-tokens 2 --set name=t-2
}
for part in north w; do
    adapter=runs/t-2/$part/adapter
    saved 0 north ''
    cp $adapter/adapter_model.safetensors $adapter/adapter_config.json .
    truncate -s 3000 $adapter/adapter_model.safetensors
    saved 4 "$adapter/adapter_model.safetensors.*truncated" "$adapter/adapter_model.safetensors.*truncated"
    cp adapter_model.safetensors $adapter/
    echo '{' >$adapter/adapter_config.json
    saved 4 "$adapter/adapter_config.json" "$adapter/adapter_config.json"
    cp adapter_config.json $adapter/
    mv runs/t-2/$part gone
    saved 4 "$adapter isn't there.*train first" "$adapter isn't there.*train first"
    mv gone runs/t-2/$part
done
for verb in eval 'generate --prompt x'; do
    expect 4 "runs/nosuch/north/adapter isn't there.*train first" \
        "$TRUNKLINE" $verb t.yaml --saved --site north --set name=nosuch
done

#   A save that is damaged, or isn't there any more, is passed over, whoever's it is: all parts go on together from the newest
#   that all have.
cp -r runs/t whole
resume () {
    expect "$1" "$2" "$TRUNKLINE" up t.yaml $ports $shared --resume --set train.steps=8
}
#   together RUN WHAT...: all of them come to the same.
together () {
    whole=$1 saves=
    shift
    for what in "$@"; do
        rm -r runs/t
        cp -r $whole runs/t
        state=runs/t/${what#* }/save-00000006.state
        ${what% *} $state
        resume 0 'from step 4 on'
        [ "${what% *}" = rm ] || grep -q "$state is damaged, for its checksum does not hold" err.txt || fail "$(cat err.txt)"
        grep -q 'learnt in between is lost' err.txt && fail "$what: nobody lost anything: $(cat err.txt)"
        came=$(sha256sum runs/t/*/save-00000008.state)
        [ "${saves:=$came}" = "$came" ] || fail "$what: expected $saves, got $came"
    done
}
shared='--set federate.clients=average --set federate.every=2 --set federate.server.optimizer=adam'
expect 0 '' "$TRUNKLINE" up t.yaml $ports $shared
cp -r runs/t shared
together shared 'rm broker' 'flip aggregator'
shared=
together whole 'rm broker' 'rm north' 'flip broker' 'flip north'
rm -r runs/t
cp -r whole runs/t
rm runs/t/broker/save-00000004.state
flip runs/t/north/save-00000006.state
resume 4 'north saved step 6 .*put its directory back and --resume, or let it go on alone with that of step 4 with --resume --fresh'
for state in runs/t/north/save-0000000[24].state; do
    flip $state
done
resume 4 'runs/t/north/save-.* is damaged, .*: there is none; put a copy of this file back, or begin'
rm runs/t/broker/save-*
resume 4 'runs/t/broker holds none of the saves that run.db tells of, or none that is whole: bring them back, or'
rm -r runs/t
mv whole runs/t

#   A run that does not come to its first step leaves all of the one before: saves, adapters, run.db, which can be gone on with.
files () {
    find runs/t -type f ! -name trunkline.log ! -name lock | sort | xargs sha256sum
}
#   stays PATTERN OPTION...: `up` ends with 4 and that sentence, and nothing is replaced.
stays () {
    pattern=$1
    shift
    expect 4 "$pattern" "$TRUNKLINE" up t.yaml $ports "$@"
    grep -q 'replaces' err.txt && fail "nothing was replaced: $(cat err.txt)"
    files >now.txt
    diff before.txt now.txt || fail "'$*' changed what an earlier run had saved"
}
files >before.txt
grep -c 'save-.*state' before.txt >/dev/null || fail "no saves to be kept: $(cat before.txt)"
cp north.jsonl broken.jsonl
echo '{"prompt": ' >>broken.jsonl
stays 'broken.jsonl:21: not valid JSON' --set clients.0.data=broken.jsonl
stays 'broken.jsonl:21: not valid JSON' --set clients.0.data=broken.jsonl --replace
mkdir -p empty && cp model/config.json empty/
stays 'model' --set model.path=empty
chmod 644 keys/broker.broker.secret
stays 'keys' ; chmod 600 keys/broker.broker.secret
expect 0 'adapters and summary.json are in runs/t' "$TRUNKLINE" up t.yaml $ports --resume --set train.steps=8

#   A run.db that is gone, damaged or empty: that and what to do is said at once, and --replace does it.
cp runs/t/run.db .
for how in rm 'truncate -s 5000' 'truncate -s 0'; do
    cp run.db runs/t/
    $how runs/t/run.db
    files >before.txt
    for option in '' --resume; do
        stays "runs/t/run.db is.*: put a copy of it back, .*begin the run anew with --replace" $option
    done
done
expect 0 'replaces the run saved in runs/t, step 8' "$TRUNKLINE" up t.yaml $ports --replace

#   Its summary too, and it says one sentence.
cp runs/t/summary.json kept.json
for option in '' '--resume --set train.steps=8'; do
    expect 4 'client/north: t.yaml: client.north.data: absent.jsonl can' "$TRUNKLINE" up t.yaml $ports --set clients.0.data=absent.jsonl $option
    grep -q 'stopped\|adapters\|tokens/s' err.txt && fail "nothing was done: $(cat err.txt)"
    [ ! -s out.txt ] || fail "a table of nothing: $(cat out.txt)"
    cmp kept.json runs/t/summary.json
done
expect 4 'broker.control: tcp://localhost:[0-9]* can.t be bound, it has a name' \
    "$TRUNKLINE" up t.yaml $ports --set broker.control=tcp://localhost:5569
grep -q 'replaces' err.txt && fail "nothing was replaced, the broker ended before: $(cat err.txt)"

expect 2 'nothing listens at tcp://127.0.0.1:[0-9]*, so nothing is there to be stopped' "$TRUNKLINE" down t.yaml $ports
#   Where nothing listens that is said at once; a listener that says nothing gets time to.
timeout 3 "$TRUNKLINE" status t.yaml $ports >out.txt 2>err.txt && fail "a status of nothing"
grep -q "nothing listens at tcp://127.0.0.1:[0-9]*: start the run with" err.txt || fail "$(cat err.txt)"

#   What does not end a run, check notes: ports that are taken, keys that others can add to.
chmod 777 keys
mkfifo told
"$TRUNKLINE" run broker t.yaml $ports --replace --format jsonl >told 2>broker.txt &
broker=$!
exec 3<told
grep -q '"event": *"up"' <&3 || fail "$(cat broker.txt)"
expect 0 'NOTE *keys *others can put keys in keys (mode 0777, .*run: chmod 700 keys' "$TRUNKLINE" check t.yaml $ports
grep -q 'NOTE *broker.clients .*is already in use; stop' out.txt || fail "busy ports aren't noted: $(cat out.txt)"

#   A run that waits says for whom, and who was there is listed.
expect 0 't: waiting for north, south and a worker, step 0' "$TRUNKLINE" status t.yaml $ports
"$TRUNKLINE" run worker t.yaml w $ports >worker.txt 2>&1 &
worker=$!
grep -q '"state": *"here"' <&3
expect 0 't: waiting for north, south, step 0' "$TRUNKLINE" status t.yaml $ports
kill $worker
grep -q '"state": *"left"' <&3
wait $worker || true
expect 0 '^w  *worker  *left' "$TRUNKLINE" status t.yaml $ports
kill $broker
wait $broker || true
chmod 700 keys
expect 0 'can be written' "$TRUNKLINE" check t.yaml $ports
grep -q NOTE out.txt && fail "nothing is to be noted: $(cat out.txt)"

#   Memory is the same figure before the run and in it: plan, check and the parts' own words.
"$TRUNKLINE" plan t.yaml --format jsonl >plan.jsonl
"$TRUNKLINE" check t.yaml $ports >check.txt
expect 0 '"event": *"plan"' "$TRUNKLINE" up t.yaml $ports --format jsonl --set name=planned
cp out.txt planned.jsonl
for part in client.north client.south worker.w; do
    role=${part%.*} name=${part#*.}
    bytes=$(grep '"event": *"plan"' planned.jsonl | grep "\"part\": *\"$role/$name\"" | sed 's/.*"bytes": *\([0-9]*\).*/\1/')
    [ -n "$bytes" ] || fail "$part told of no plan"
    mb=$(awk -v bytes="$bytes" 'BEGIN { printf "%.1f", bytes / 1e6 }')
    grep -q "$part  *$mb MB = " check.txt || fail "$part planned $mb MB in the run: $(grep memory check.txt)"
    awk -v mb="$mb" -v line="$(grep "\"name\": *\"$name\"" plan.jsonl)" \
        'BEGIN { sub (/.*"total_mb": */, "", line); sub (/,.*/, "", line); exit sprintf ("%.1f", line) != mb }' ||
        fail "$part planned $mb MB in the run: $(grep "\"$name\"" plan.jsonl)"
done
