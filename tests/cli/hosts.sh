#   A topology of several hosts: each host's share is checked there, and nothing passes for checked that wasn't.
. tests/cli/lib.sh
make_site_files
sed -e 's/name: w}/name: w, host: hub}/' -e 's/name: north,/name: north, host: north.example,/' \
    -e 's/name: south,/name: south, host: south.example,/' t.yaml >hosts.yaml
echo 'broker: {host: hub, control: "tcp://192.0.2.1:5569", clients: "tcp://192.0.2.1:5570", workers: "tcp://192.0.2.1:5571"}' >>hosts.yaml

expect 0 'nothing was checked: no part of hosts.yaml belongs on this machine' "$TRUNKLINE" check hosts.yaml
[ "$(grep -c '^NOT CHECKED' out.txt)" -eq 4 ] || fail "not all four parts are named: $(cat out.txt)"
grep -q 'client.south .*south.example; run there: trunkline check hosts.yaml --host south.example' out.txt ||
    fail "no command for south: $(cat out.txt)"
#   Advice repeats what was overridden.
expect 0 'check hosts.yaml --host hub --set train.lr=0.5 --set .tune.targets=\[dense\]. *$' \
    "$TRUNKLINE" check hosts.yaml --set train.lr=0.5 --set 'tune.targets=[dense]'
expect 4 "no part of hosts.yaml has the host 'huub'; write --host hub if that was meant" \
    "$TRUNKLINE" check hosts.yaml --host huub

#   A site's host needs its text, the model, its pair and the broker's public key; the hub needs no text.
"$TRUNKLINE" keys make hosts.yaml >keys.txt
expect 0 'data *south' "$TRUNKLINE" check hosts.yaml --host south.example
grep -q 'key *client.south' out.txt && grep -q 'NOT CHECKED client.north' out.txt ||
    fail "not what south's host has: $(cat out.txt)"
mv south.jsonl away
expect 0 'key *worker.w' "$TRUNKLINE" check hosts.yaml --host hub
grep -q '^data' out.txt && fail "the hub has no text: $(cat out.txt)"
expect 4 'south.jsonl' "$TRUNKLINE" check hosts.yaml --host south.example
expect 0 'data *north' "$TRUNKLINE" check hosts.yaml --host north.example
rm keys/client.south.key
expect 4 'run on south.example: trunkline keys make hosts.yaml client.south, and copy' \
    "$TRUNKLINE" check hosts.yaml --host hub
cp -r keys others
expect 4 'trunkline keys make hosts.yaml client.south --set keys=others, and copy' \
    "$TRUNKLINE" check hosts.yaml --host hub --set keys=others

#   `up` starts nothing that belongs elsewhere, and says what to type there.
expect 4 'broker belongs on hub: start it there with .trunkline run broker hosts.yaml.$' "$TRUNKLINE" up hosts.yaml
grep -q 'worker w belongs on hub: start it there with .trunkline run worker hosts.yaml w.$' err.txt ||
    fail "no command for the worker: $(cat err.txt)"
