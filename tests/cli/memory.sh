#   A run's peak memory is at most a tenth above what it planned, also after many texts of different lengths: no holes are
#   left between tapes.
. tests/cli/lib.sh

cat >mine.yaml <<END
version: 1
name: mine
model: {path: $root/models/tiny-glm}
train: {steps: 60, batch_size: 4, lr: 1e-2}
workers:
  - {name: trunk-1}
clients:
  - {name: north, data: $root/data/north.jsonl}
  - {name: south, data: $root/data/south.jsonl}
END
for site in "" "--site north"; do
    # shellcheck disable=SC2086
    "$TRUNKLINE" train mine.yaml $site --out "out$site" >out.txt 2>err.txt || fail "$(cat err.txt)"
    sed -n 's/^memory peak: \([0-9.]*\) MB, plan \([0-9.]*\) MB.*/\1 \2/p' out.txt err.txt >figures
    awk 'NF == 2 && $1 <= 1.1 * $2 && $1 >= 0.8 * $2 { good = 1 } END { exit !good }' figures ||
        fail "peak and plan of train $site, MB: $(cat figures), expected 0.8 to 1.1 of the plan"
done
