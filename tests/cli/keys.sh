#   Key files: made once, private, listed without a secret.
. tests/cli/lib.sh
make_topology t.yaml

expect 0 '5 key pairs made, 0 already there' "$TRUNKLINE" keys make t.yaml
expect 0 '0 key pairs made, 5 already there' "$TRUNKLINE" keys make t.yaml
for file in keys/*.secret; do
    [ "$(stat -c %a "$file")" = 600 ] || fail "$file has mode $(stat -c %a "$file"), expected 600"
done
expect 0 'client *north' "$TRUNKLINE" keys list t.yaml
"$TRUNKLINE" keys list --dir keys --format jsonl >list
[ "$(wc -l <list)" -eq 5 ] || fail "expected 5 keys: $(cat list)"
grep -q '"fingerprint":"[0-9a-f]\{16\}"' list || fail "no fingerprint: $(cat list)"
for file in keys/*.secret; do
    secret=$(sed -n 's/.*secret[^ ]* *//p' "$file" | head -n 1)
    [ -z "$secret" ] || ! grep -qF -e "$secret" list || fail "$file is in the list"
done
expect 0 '1 key pair made' "$TRUNKLINE" keys make --dir more client.west
expect 4 'expected ROLE.NAME' "$TRUNKLINE" keys make --dir more boss.west
expect 4 "expected 'make' or 'list'" "$TRUNKLINE" keys forge t.yaml
expect 4 "no directory nowhere; make it and its keys with: trunkline keys make --dir nowhere" \
    "$TRUNKLINE" keys list --dir nowhere
expect 4 "no directory void; make it and its keys with: trunkline keys make t.yaml --set keys=void$" \
    "$TRUNKLINE" keys list t.yaml --set keys=void

#   Names that the topology doesn't have, before anything is made.
expect 4 "t.yaml has no 'client.nroth'; write client.north if that was meant" \
    "$TRUNKLINE" keys make t.yaml --set keys=none client.south client.nroth
expect 4 "t.yaml has no 'south'; write client.south if that was meant" "$TRUNKLINE" keys make t.yaml south
expect 4 "t.yaml has no 'worker.zeppelin'; write one of its parts, like client.south" \
    "$TRUNKLINE" keys make t.yaml worker.zeppelin
[ ! -e none ] || fail "keys were made of names one of which was refused: $(ls none)"
expect 0 '2 key pairs made' "$TRUNKLINE" keys make t.yaml --set keys=some broker client.north

#   One bad file, and two with one key: each is said with the command that mends it, the others are listed.
echo nonsense >keys/client.north.key
sed 's/south/north/' keys/client.south.key >twin
expect 4 'keys/client.north.key is not a good key file.*trunkline keys make --dir keys client.north' \
    "$TRUNKLINE" keys list t.yaml
[ "$(grep -c '^\(broker\|admin\|worker\|client\) ' out.txt)" -eq 4 ] || fail "the good keys are not all listed: $(cat out.txt)"
grep -q 'keys: 1 thing is wrong' err.txt || fail "no count: $(cat err.txt)"
cp twin keys/client.north.key
expect 4 'client.north.key and client.south.key hold one and the same key' "$TRUNKLINE" keys list t.yaml
grep -q '^client *south' out.txt || fail "the keys are not listed: $(cat out.txt)"
