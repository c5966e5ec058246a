#   What README.md tells somebody with text of their own to type works as it stands there, on what a clone holds. Only the
#   ports are others (tests run side by side), and the steps fewer.
. tests/cli/lib.sh
cp -r "$root/models" .
mkdir data
cp "$root"/data/north*.jsonl "$root"/data/south*.jsonl data/
#   The first topology, and what may be added to it.
awk '/^```yaml$/ {count++; file = count == 1 ? "mine.yaml" : "more.yaml"; next} /^```/ {file = ""} file {print >file}' "$root/README.md"
[ "$(wc -l <mine.yaml)" -le 10 ] || fail "not ten lines or less: $(cat mine.yaml)"
sed -n 's/^trunkline \([^#]*[^# ]\) *\(#.*\)*$/\1/p' "$root/README.md" | sed 's/--model DIR/--model models\/tiny-glm/' >commands
[ "$(wc -l <commands)" -ge 7 ] || fail "expected at least seven commands in README.md, found $(cat commands)"
#   Files that a reader has of his own.
echo '{"prompt": "Who kept the light?"}' >prompts.jsonl
echo '{"prompt": "When is the market?", "choices": ["On Thursdays.", "Never."], "answer": 0}' >choices.jsonl
echo "broker: {$(free_ports | sed 's/--set broker\.\([a-z]*\)=\([^ ]*\)/\1: "\2", /g')}" >>mine.yaml
sed -i 's/steps: 200/steps: 4/' mine.yaml
cat mine.yaml more.yaml >averaged.yaml

while read -r line; do
    case $line in
    up*)
        mkfifo said
        eval "exec \"\$TRUNKLINE\" $line --format jsonl" >said 2>up.err &
        up=$!
        exec 3<said
        while read -r event <&3; do
            case $event in *'"event":"serving"'*) break ;; esac
        done
        ;;
    *) echo "Who kept the light?" | eval "\"\$TRUNKLINE\" $line" >out.txt 2>err.txt || fail "$line ended with $?: $(cat err.txt)" ;;
    esac
    case $line in
    status*) grep -q '^mine: serving, step 4' out.txt || fail "not where it should be: $(cat out.txt)" ;;
    esac
done <commands
cat <&3 >rest
wait $up || fail "up ended with $?: $(cat up.err)"

#   What may be added goes with it.
"$TRUNKLINE" keys make averaged.yaml >made.txt 2>&1 || fail "keys make: $(cat made.txt)"
expect 0 'aggregator.aggregator' "$TRUNKLINE" check averaged.yaml --set name=averaged

#   The shapes of text that it names, each a line.
sed -n '/^{"prompt": "Who/,/^```/{/^```/d;p}' "$root/README.md" >shapes.jsonl
expect 0 'shapes.jsonl: 4 examples' "$TRUNKLINE" check mine.yaml --set clients.0.data=shapes.jsonl
