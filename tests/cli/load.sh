#   Synthetic parts: a real broker and worker, and twenty clients in one process.
. tests/cli/lib.sh
cat >s.yaml <<YAML
version: 1
name: s
model: {synthetic: {hidden: 64}}
train: {steps: 6, batch_size: 2, micros: 2}
schedule: {mode: batch}
checkpoint: {dir: runs, every: 3}
workers: [{name: w, compute: {synthetic: {base_ms: 2, us_per_row: 1}}}]
clients: [{name: s, count: 20, compute: {synthetic: {rows: 16}}}]
YAML
cp s.yaml real.yaml
sed -i 's/^model.*/model: {path: m}/; s/, compute: {synthetic: {base.*/}]/; s/count.*/data: d.jsonl}]/' real.yaml
ports=$(free_ports)
"$TRUNKLINE" keys make s.yaml >out.txt

#   value KEY FILE: of the last line that has it.
value () {
    sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$2" | tail -n 1
}

#   Every step is accounted for: by the broker, and by each client.
for mode in batch serial; do
    TL_LOG=info "$TRUNKLINE" run broker s.yaml $ports --set schedule.mode=$mode --replace --format jsonl >broker.jsonl 2>broker.txt &
    broker=$!
    "$TRUNKLINE" run worker s.yaml w $ports --set schedule.mode=$mode --format jsonl >worker.jsonl 2>worker.txt &
    worker=$!
    TL_LOG=info "$TRUNKLINE" run load s.yaml $ports --set schedule.mode=$mode --first 1 --count 8 --format jsonl >first.jsonl 2>first.txt &
    load=$!
    expect 0 '"event":"load"' "$TRUNKLINE" run load s.yaml $ports --set schedule.mode=$mode --first 9 --format jsonl
    wait $load || fail "$mode: the first load ended with $?: $(cat first.txt)"
    wait $worker || fail "$mode: the worker ended with $?: $(cat worker.txt)"
    wait $broker || fail "$mode: the broker ended with $?: $(cat broker.txt)"
    [ "$mode" = batch ] && steps=6 labels=640 || { steps=120 labels=32; }
    closed=$(grep -c '"event":"closed"' broker.jsonl)
    [ "$closed" -eq $steps ] || fail "$mode: the broker closed $closed steps, expected $steps"
    counted=$(grep '"event":"closed"' broker.jsonl | grep -c "\"labels\":$labels,")
    [ "$counted" -eq $steps ] || fail "$mode: $counted of $steps steps have $labels label tokens: $(cat broker.jsonl)"
    for file in first.jsonl out.txt; do
        [ "$(value least_steps $file) $(value most_steps $file)" = '6 6' ] || fail "$mode: not every client made 6 steps: $(cat $file)"
    done
    [ "$(value steps first.jsonl) $(value steps out.txt)" = '48 72' ] || fail "$mode: $(value steps first.jsonl) and $(value steps out.txt) steps, expected 48 and 72"
    grep -q '"event":"saved"' broker.jsonl || fail "$mode: nothing was saved"
    #   Lines of a load say of which client they are.
    grep -q 'load/s-01: s-08: admitted by' first.txt || fail "$mode: $(cat first.txt)"
    #   At the worker, the first client, half of the others, half of these, and each of the last six.
    grep -q 'waiting for [0-9]* of 20 clients (s-[0-9]*, s-[0-9]*, s-[0-9]* \.\.\.)' broker.txt || fail "$mode: $(cat broker.txt)"
    said=$(grep -c 'waiting for' broker.txt)
    [ "$said" -le 10 ] || fail "$mode: the broker said $said times for whom it waits, expected at most 10: $(cat broker.txt)"
done

#   A worker computes while there is something that it may compute: a client that answers at once leaves it no gap between its
#   micros, however many are under way. One that thinks leaves it waiting for input, and for its commit.
cat >idle.yaml <<YAML
version: 1
name: idle
model: {synthetic: {hidden: 64}}
train: {steps: 5, batch_size: 4, micros: 4}
checkpoint: {dir: runs}
workers: [{name: w, compute: {synthetic: {base_ms: 20, us_per_row: 0}}}]
clients: [{name: s, compute: {synthetic: {rows: 16}}}]
YAML
"$TRUNKLINE" keys make idle.yaml >out.txt
idle () {
    "$TRUNKLINE" up idle.yaml $ports --replace --format jsonl "$@" >idle.jsonl 2>idle.txt || fail "up ended with $?: $(cat idle.txt)"
    grep '"event":"idle"' idle.jsonl >idle.txt || fail "the worker told nothing of its time: $(cat idle.jsonl)"
}
#   is KEY least|most SECONDS
is () {
    seconds=$(sed -n "s/.*\"$1\":\([0-9.e-]*\).*/\1/p" idle.txt)
    awk -v got="$seconds" -v want="$3" -v how="$2" 'BEGIN { exit !(how == "least" ? got >= want : got <= want) }' ||
        fail "$1: expected at $2 $3 s, got $seconds: $(cat idle.txt)"
}
idle #   5 steps of 4 micros, forward and backward
is computing least 0.8
is input most 0.2
idle --set clients.0.compute.synthetic.base_ms=30
is computing least 0.8
is input least 0.3
is commit least 0.3

#   `up` plays them too, few processes for all clients.
expect 0 '^summary.json is in runs/s' "$TRUNKLINE" up s.yaml $ports --format jsonl
[ "$(grep -c '"event":"load"' out.txt)" -eq 4 ] || fail "up has not started four loads: $(grep load out.txt)"
grep -q '"steps": *6' runs/s/summary.json || fail "$(cat runs/s/summary.json)"

#   A limit that is too low is named; what isn't synthetic isn't played.
expect 4 'a broker of 21 peers needs 106 open files and the limit is 80 (RLIMIT_NOFILE); raise it' \
    prlimit --nofile=80:80 "$TRUNKLINE" run broker s.yaml $ports --replace
expect 4 'real.yaml has a model: only synthetic clients share a process' "$TRUNKLINE" run load real.yaml
expect 4 's.yaml has 20 clients, --first 20 and --count 2 reach beyond' "$TRUNKLINE" run load s.yaml --first 20 --count 2
expect 4 'first and --count belong to the role load' "$TRUNKLINE" run client s.yaml s-01 --count 2
expect 0 'hidden 64, nothing is computed' "$TRUNKLINE" check s.yaml $ports
expect 4 's.yaml has no model, it is synthetic' "$TRUNKLINE" plan s.yaml
