#   Key files: made once, private, listed without a secret.
. tests/cli/lib.sh
make_topology t.yaml

expect 0 '5 key pairs made, 0 were there' "$TRUNKLINE" keys make t.yaml
expect 0 '0 key pairs made, 5 were there' "$TRUNKLINE" keys make t.yaml
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
expect 0 '1 key pairs made' "$TRUNKLINE" keys make --dir more client.west
expect 4 'expected ROLE.NAME' "$TRUNKLINE" keys make --dir more boss.west
expect 4 "expected 'make' or 'list'" "$TRUNKLINE" keys forge t.yaml
expect 4 "no keys\|can't be" "$TRUNKLINE" keys list --dir nowhere
