#   Every topology/*.yaml is good: the files it names stand in the places it names them.
. tests/cli/lib.sh

make_example_files
count=0
for file in "$root"/topology/*.yaml; do
    "$TRUNKLINE" keys make "$file" >/dev/null
    expect 0 '^topology' "$TRUNKLINE" check "$file"
    "$TRUNKLINE" check "$file" --format json >check.json
    if command -v python3 >/dev/null; then
        python3 -c 'import json,sys; json.load (open ("check.json"))["checks"][0]["name"]'
    fi
    count=$((count + 1))
done
[ $count -ge 4 ] || fail "only $count topologies were checked"

#   The smallest stays small: who copies it reads ten lines, comments apart.
lines=$(grep -cv '^#' "$root/topology/one-site.yaml")
[ "$lines" -le 10 ] || fail "one-site.yaml has $lines lines"

#   A key file that others can read, and one that is missing, are found before a run.
chmod 644 keys/client.north.secret
expect 4 'chmod 600' "$TRUNKLINE" check "$root/topology/one-site.yaml"
rm keys/client.north.secret keys/client.north.key
expect 4 'run: trunkline keys make --dir keys client.north' "$TRUNKLINE" check "$root/topology/one-site.yaml"
rm keys/broker.broker.key
expect 4 "broker.broker.key isn't there; copy it from where the broker runs" \
    "$TRUNKLINE" check "$root/topology/two-machines.yaml" --set clients.1.host=localhost
