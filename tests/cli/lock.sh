#   One directory, one process that writes it: a second `up`, broker or `train` of the same name changes nothing.
. tests/cli/lib.sh
make_site_files
ports=$(free_ports)
others=$(free_ports)
pid=
trap 'kill $pid 2>/dev/null || true; wait; rm -rf "$work"' EXIT

#   began COMMAND...: runs it in the background and returns when it has told its first event on stdout.
mkfifo events
began () {
    "$@" >events 2>began.txt &
    pid=$!
    exec 3<events
    read -r _ <&3 || fail "'$*' told nothing: $(cat began.txt)"
}

began "$TRUNKLINE" up t.yaml $ports --stay --format jsonl
cat <&3 >/dev/null &
#   Nothing is said before it, and nothing gets into the log of the run that lives.
for more in "$ports" "$others" "$others --replace" "$others --resume"; do
    expect 4 "^trunkline: runs/t is in use by another process (pid $pid): stop that run with .trunkline down t.yaml., or .*--set name=t-2" \
        "$TRUNKLINE" up t.yaml $more
    [ "$(wc -l <err.txt)" = 1 ] || fail "more than that sentence: $(cat err.txt)"
done
expect 4 'runs/t/broker is in use by another process (pid [0-9]*): stop' "$TRUNKLINE" run broker t.yaml $others --replace
grep -q 'is in use' runs/t/trunkline.log && fail "the live run's log has it: $(cat runs/t/trunkline.log)"
expect 0 '' "$TRUNKLINE" up t.yaml $others --set name=t-2
expect 0 '' "$TRUNKLINE" down t.yaml $ports
wait $pid || fail "the run did not end well: $(cat began.txt)"
pid=
expect 0 'replaces the run saved in runs/t, step 6' "$TRUNKLINE" up t.yaml $ports

began "$TRUNKLINE" train t.yaml --set train.steps=1000000 --out x --format jsonl
cat <&3 >/dev/null &
expect 4 "x is in use by another process (pid $pid): wait for it or stop it" "$TRUNKLINE" train t.yaml --out x
grep -q replaces err.txt && fail "nothing was replaced: $(cat err.txt)"
#   However it ends.
kill -KILL $pid
wait $pid || true
pid=
expect 0 'after step 6 of 6' "$TRUNKLINE" train t.yaml --out x
