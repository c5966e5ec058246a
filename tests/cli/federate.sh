#   Four sites of WordNet's definitions and models/tiny-glm: one gradient of all (sync) is centralised training;
#   two trunks that are averaged (fanout) come close to it; FedAvg and every site alone stand beside them.
#
#   sh tests/cli/federate.sh [STEPS [BATCH [EVERY [HELD_OUT [DIRECTORY]]]]]
#
#   As a test it runs for seconds, as scripts/bench federate with `50 8 10 250`; DIRECTORY keeps what the runs saved.
. tests/cli/lib.sh

steps=${1:-10} batch=${2:-4} every=${3:-5} held_out=${4:-40}
[ -r "${WORDNET:-/usr/share/wordnet}/data.noun" ] || {
    echo "skipped: Debian's package wordnet-base is not installed"
    exit 77
}
if [ -n "${5:-}" ]; then
    mkdir -p "$root/$5" && cd "$root/$5"
fi
sites="animals plants substances motion"
"$root"/scripts/wordnet-sites --out "$PWD/data" --eval "$held_out" >/dev/null

#   topology WORKERS
topology () {
    # shellcheck disable=SC2046
    set -- "$1" $("${TL_TESTS:?is set by CTest}"/free_ports 3)
    cat <<END
version: 1
name: t
model: {path: $root/models/tiny-glm}
tune: {targets: [query_key_value, dense, dense_h_to_4h, dense_4h_to_h]}
train: {steps: $steps, batch_size: $batch, lr: 1e-2, warmup: 5}
schedule: {mode: batch}
federate: {every: $every}
wire: {dtype: fp32}
checkpoint: {dir: runs, every: 1000}
keys: keys
broker: {control: "tcp://127.0.0.1:$2", clients: "tcp://127.0.0.1:$3", workers: "tcp://127.0.0.1:$4"}
workers:
END
    i=1
    while [ $i -le "$1" ]; do
        echo "  - {name: trunk-$i}"
        i=$((i + 1))
    done
    echo clients:
    for site in $sites; do
        echo "  - {name: $site, data: data/$site.jsonl, eval: data/$site.eval.jsonl}"
    done
}

#   together NAME WORKERS OPTION...: a run of several processes; its events in NAME.jsonl.
together () {
    name=$1
    topology "$2" >"$name.yaml"
    shift 2
    "$TRUNKLINE" up "$name.yaml" --set name="$name" --format jsonl "$@" >"$name.jsonl" 2>"$name.err" || {
        cat "$name.err" >&2
        fail "the run $name ended badly"
    }
    score "$name" <"runs/$name/summary.json"
}

#   apart NAME OPTION...: training in one process, of the text of all sites or of one, and its score on all.
apart () {
    name=$1
    shift
    "$TRUNKLINE" train sync.yaml --out "$name" --format jsonl "$@" >"$name.jsonl" 2>"$name.err" &&
        "$TRUNKLINE" eval sync.yaml --adapter "$name/adapter" --format json >"$name.json" 2>>"$name.err" || {
        cat "$name.err" >&2
        fail "training $name ended badly"
    }
    score "$name" <"$name.json"
}

#   score NAME: prints the held-out perplexity over all sites, which JSON on stdin holds as sums, and keeps it.
score () {
    awk -F '[":, ]+' -v name="$1" '
        $2 == "site" || $2 == "name" { whole = index ("'" $sites "'", " " $3 " ") == 0 }
        whole && $2 == "perplexity" { all = $3 }
        $2 == "bytes" && !bytes { bytes = $3 }
        END { printf "%-28s %10.4f", name, all; if (bytes) printf "  %8.1f MB", bytes / 1e6; print "" }' |
        tee -a table
}

rm -f table
together sync 1 --set federate.clients=sync
apart centralised
together fanout 2 --set schedule.mode=fanout
if [ "$steps" -ge 50 ]; then
    together batch 1
    together average 1 --set federate.clients=average
    together fedavg 1 --set federate.clients=average --set split=none
    #   Alone each spends as many label tokens as all together.
    labels=$(sed -n 's/.*"labels": *\([0-9]*\).*/\1/p' centralised.jsonl | awk '{ sum += $1 } END { print sum }')
    for site in $sites; do
        apart "$site" --site "$site" --label-tokens "$labels"
    done
fi

#   Every step's mean loss over the sites against training in one place.
awk -F '[:,{}]' '
    function value (key,    i) { for (i = 1; i < NF; i++) if ($i == "\"" key "\"") return $(i + 1) }
    FNR == NR && /"loss"/ && /"step"/ { central [value ("step") - 1] = value ("loss"); next }
    FNR == NR { next }
    /"event":"step"/ || /"event": "step"/ { nll [value ("step")] += value ("loss") * value ("labels"); n [value ("step")] += value ("labels") }
    END {
        for (step in nll) {
            d = nll [step] / n [step] - central [step]
            if (d < 0) d = -d
            if (d > worst) worst = d
            steps++
        }
        printf "%d steps: sync differs from centralised by at most %.2g in loss (allowed 1e-4)\n", steps, worst
        exit !(steps == '"$steps"' && worst <= 1e-4)
    }' centralised.jsonl sync.jsonl || fail "sync is not centralised training"

awk -v sites="$sites" '
    { score [$1] = $2 }
    END {
        if (score ["fanout"] > 1.02 * score ["centralised"]) { print "fanout is more than 2 % above centralised"; bad = 1 }
        d = score ["sync"] / score ["centralised"] - 1
        if (d > 1e-4 || d < -1e-4) { print "sync and centralised differ on held-out text"; bad = 1 }
        n = split (sites, site, " ")
        for (i = 1; i <= n; i++)
            if (site [i] in score && score ["fanout"] >= score [site [i]]) { print "fanout is no better than " site [i] " alone"; bad = 1 }
        exit bad
    }' table || fail "the figures above are not what they have to be"
