#   join: window with real processes: three quick clients, and one that takes long. It is stopped (SIGSTOP) while a step
#   goes on without it: the others make their steps, and when it goes on it is in the next one. Every step is accounted for.
. tests/cli/lib.sh
cat >w.yaml <<YAML
version: 1
name: w
model: {synthetic: {hidden: 64}}
train: {steps: 50, batch_size: 1}
schedule: {mode: batch, join: window}
checkpoint: {dir: runs, every: 1000}
workers: [{name: w, compute: {synthetic: {base_ms: 10, us_per_row: 1}}}]
clients:
  - {name: quick, count: 3, compute: {synthetic: {rows: 16, base_ms: 2}}}
  - {name: slow, compute: {synthetic: {rows: 16, base_ms: 250}}}
YAML
ports=$(free_ports)
"$TRUNKLINE" keys make w.yaml >out.txt
mkfifo told
TL_LOG=info "$TRUNKLINE" run broker w.yaml $ports --format jsonl >told 2>broker.txt &
broker=$!
exec 3<told
"$TRUNKLINE" run worker w.yaml w $ports --format jsonl >worker.jsonl 2>worker.txt &
worker=$!
"$TRUNKLINE" run load w.yaml $ports --first 1 --count 3 --format jsonl >quick.jsonl 2>quick.txt &
quick=$!
"$TRUNKLINE" run load w.yaml $ports --first 4 --format jsonl >slow.jsonl 2>slow.txt &
slow=$!

#   until PATTERN: reads what the broker tells until a line of it matches.
until_told () {
    while IFS= read -r line <&3; do
        printf '%s\n' "$line" >>broker.jsonl
        printf '%s\n' "$line" | grep -Eq "$1" && return
    done
    fail "the broker never said $1: $(cat broker.txt)"
}

#   How long it takes is known when it has been in a step once; then one begins, and it is far away.
until_told '"members":4,.*"event":"closed"'
until_told '"soonest":"slow","soonest_ms":(1[5-9][0-9]|2[0-9][0-9])\.'
kill -STOP $slow
before=$(grep -c '"event":"closed"' broker.jsonl)
for i in 1 2 3 4 5 6; do until_told '"event":"closed"'; done
tail -n +1 broker.jsonl | grep '"event":"closed"' | tail -n +$((before + 1)) | grep -q '"members":4' &&
    fail "a client that stands still was in a step: $(cat broker.jsonl)"
expect 0 'w: step [0-9]* began with [1-3] of 4 clients' "$TRUNKLINE" status w.yaml $ports
grep -q '^w computed [0-9.]* s, and waited [0-9.]* s for input, [0-9.]* s for commits, [0-9.]* s for credit' out.txt || fail "$(cat out.txt)"
expect 0 '"steps_without_somebody": *[1-9]' "$TRUNKLINE" status w.yaml $ports --format json
grep -q '"commit_s": *[0-9]' out.txt || fail "status tells nothing of what the worker waited for: $(cat out.txt)"
kill -CONT $slow
until_told '"members":4,.*"event":"closed"'
cat <&3 >>broker.jsonl
wait $quick || fail "the quick clients ended with $?: $(cat quick.txt)"
wait $slow || fail "the slow client ended with $?: $(cat slow.txt)"
wait $worker || fail "the worker ended with $?: $(cat worker.txt)"
wait $broker || fail "the broker ended with $?: $(cat broker.txt)"

#   value KEY FILE: of the last line that has it; sum KEY: over all steps.
value () {
    sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$2" | tail -n 1
}
sum () {
    grep '"event":"closed"' broker.jsonl | sed "s/.*\"$1\":\([0-9]*\).*/\1/" | awk '{ all += $1 } END { print all }'
}
closed=$(grep -c '"event":"closed"' broker.jsonl)
[ "$closed" -eq 50 ] || fail "the broker closed $closed steps, expected 50"
taken=$(($(value steps quick.jsonl) + $(value steps slow.jsonl)))
[ "$(sum members)" -eq $taken ] || fail "clients made $taken steps, the broker's had $(sum members) members"
[ "$(sum labels)" -eq $((16 * taken)) ] || fail "$(sum labels) label tokens in $taken parts of 16"
its=$(value steps slow.jsonl)
[ "$its" -ge 3 ] && [ "$its" -lt 40 ] || fail "the slow client was in $its of 50 steps"
grep -q 'left step\|silent\|abandoned' broker.txt && fail "somebody was lost: $(cat broker.txt)"
grep -q 'it joins the next one (said once for slow)' broker.txt || fail "$(cat broker.txt)"

#   Two of them were enough to begin. The broker is killed, and before it is back one of the two leaves on purpose: the run
#   says for whom it waits, for how long, and goes on with the other.
more="$ports --set schedule.start=2 --set train.steps=100000 --set checkpoint.every=10 --set liveness.ping_ms=200 --set liveness.expire_ms=1500"
TL_LOG=info "$TRUNKLINE" run broker w.yaml $more --format jsonl >told 2>broker.txt &
broker=$!
exec 3<told
"$TRUNKLINE" run worker w.yaml w $more 2>worker.txt &
worker=$!
"$TRUNKLINE" run load w.yaml $more --first 1 --count 1 >quick.txt 2>&1 &
quick=$!
"$TRUNKLINE" run load w.yaml $more --first 4 >slow.txt 2>&1 &
slow=$!
until_told '"event":"saved"'
kill -KILL $broker
wait $broker || true
kill $slow
wait $slow || fail "the client that left ended with $?: $(cat slow.txt)"
TL_LOG=info "$TRUNKLINE" run broker w.yaml $more --resume --format jsonl >told 2>broker.txt &
broker=$!
exec 3<told
until_told '"members":1,.*"event":"closed"'
grep -q 'waiting for slow; who of the clients is not back 1.5 s after the broker began is gone on without' broker.txt ||
    fail "$(cat broker.txt)"
grep -q 'slow did not come back: the run goes on without' broker.txt || fail "$(cat broker.txt)"
kill $broker
cat <&3 >/dev/null
wait $broker || fail "the broker ended with $?: $(cat broker.txt)"
wait $quick || fail "the client that stayed ended with $?: $(cat quick.txt)"
wait $worker || fail "the worker ended with $?: $(cat worker.txt)"

#   What doesn't go together is refused by name.
expect 4 'federate.clients sync sums the gradients of all clients in every step' \
    "$TRUNKLINE" check "$root/topology/three-sites.yaml" --set schedule.join=window --set federate.clients=sync
expect 4 'with schedule.mode serial a step is one client' "$TRUNKLINE" check w.yaml --set schedule.mode=serial
