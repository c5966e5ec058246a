#   trunkline simulate: every commented example runs, its JSON is JSON, its picture is well-formed, and answers repeat.
. tests/cli/lib.sh

count=0
for file in "$root"/topology/simulate/*.yaml; do
    #   The large one in small: the whole takes half a minute.
    set --
    case $file in *ten-thousand.yaml) set -- --set clients.0.count=900 --set clients.1.count=100 --set train.steps=20 ;; esac
    expect 0 'rows/s' "$TRUNKLINE" simulate "$file" --svg run.svg "$@"
    "$TRUNKLINE" simulate "$file" "$@" --format json >run.json
    "$TRUNKLINE" simulate "$file" "$@" --format json >again.json
    cmp run.json again.json || fail "$file: the same file gave two answers"
    if command -v python3 >/dev/null; then
        python3 - <<'END'
import json, xml.dom.minidom
run = json.load (open ("run.json"))
assert run ["rows"] > 0 and run ["periods"] and len (run ["workers"]) > 0
assert abs (sum (run ["workers_time"].values ()) - 1) < 1e-6
xml.dom.minidom.parse ("run.svg")
END
    fi
    count=$((count + 1))
done
[ $count -ge 7 ] || fail "only $count examples were simulated"

file=$root/topology/simulate/fanout-pays.yaml
expect 0 '^fanout ' "$TRUNKLINE" simulate "$file" --compare
expect 0 'far took part in [1-9][0-9]* % of the rounds' "$TRUNKLINE" simulate "$root/topology/simulate/straggler.yaml"
expect 0 'mode serial' "$TRUNKLINE" simulate "$file" --set schedule.mode=serial
expect 4 'expected auto, serial, batch or fanout' "$TRUNKLINE" simulate "$file" --set schedule.mode=quick
one=$root/topology/simulate/one-adapter.yaml
expect 0 'made 10 averages (10 of them without somebody: 20 parts were missing in all)' "$TRUNKLINE" simulate "$one"
expect 0 'made 200 sums of a step.s gradients, 0 copies' "$TRUNKLINE" simulate "$one" --set federate.deadline_s=0 --set federate.clients=sync --set federate.quorum=1
expect 0 'trunk  *1  *102400  *0.0' "$TRUNKLINE" simulate "$one" --set split=none
expect 4 'only schedule.mode batch goes with split: none' "$TRUNKLINE" simulate "$one" --set split=none --compare
#   Workers that fail before any of them is done with a step
expect 1 'stands still .*look at arrives and fails' "$TRUNKLINE" simulate "$file" --set workers.0.fails.every_s=0.01 --set workers.0.fails.back_s=100
expect 4 'leave out one of them' "$TRUNKLINE" simulate "$file" --compare --svg run.svg
expect 4 'is not a key of model; use one of hidden' "$TRUNKLINE" simulate "$root/topology/one-site.yaml"
expect 4 'nothing.yaml' "$TRUNKLINE" simulate nothing.yaml
expect 1 'no/such' "$TRUNKLINE" simulate "$file" --svg no/such/run.svg

#   What a run with sync sends, the simulation sends: tensors of its rows, and gradients of a third of a client's saved state.
if command -v python3 >/dev/null; then
    cat >sync.yaml <<YAML
version: 1
name: sync
model: {path: $root/models/tiny-glm}
train: {steps: 6, batch_size: 4, micros: 1}
schedule: {mode: batch}
federate: {clients: sync}
workers: [{name: w}]
clients:
  - {name: north, data: $root/data/north.jsonl}
  - {name: south, data: $root/data/south.jsonl}
YAML
    "$TRUNKLINE" up sync.yaml $(free_ports) --format jsonl >up.jsonl 2>err.txt || fail "up: $(cat err.txt)"
    python3 - <<'PYTHON'
import glob, json, os
events = [json.loads (line) for line in open ("up.jsonl")]
rows = [e ["rows"] / e ["members"] for e in events if e ["event"] == "closed"]
json.dump (sum (e ["bytes"] for e in events if e ["event"] == "step"), open ("bytes.json", "w"))
saved = os.path.getsize (glob.glob ("runs/sync/north/save-*.state") [0])
open ("sim.yaml", "w").write (f"""version: 1
name: sync
model: {{hidden: 256, client_mb: {saved / 1e6}}}
train: {{steps: {len (rows)}}}
schedule: {{mode: batch}}
federate: {{clients: sync}}
workers: [{{name: w}}]
clients: [{{name: c, count: 2, rows: {round (sum (rows) / len (rows))}}}]
""")
PYTHON
    "$TRUNKLINE" simulate sim.yaml --format json >run.json
    python3 - <<'PYTHON'
import json
run, sent = json.load (open ("run.json")), json.load (open ("bytes.json"))
simulated = run ["broker_mb_s"] * run ["seconds"] * 1e6
print (f"sync: {sent} bytes sent, {simulated:.0f} simulated")
assert abs (simulated / sent - 1) < 0.02, f"expected {sent} bytes as sent, got {simulated:.0f}"
PYTHON
fi
