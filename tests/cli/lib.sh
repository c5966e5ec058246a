#   What the scripts of tests/cli share. Sourced; TRUNKLINE is the program, the working directory the
#   repository's root. Each script works in a directory of its own and leaves nothing behind.

set -eu
: "${TRUNKLINE:?is set by CTest: run with ctest --preset or set it to build/<preset>/trunkline}"
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export TL_LOG=warn NO_COLOR=1

fail () {
    echo "FAILED: $*" >&2
    exit 1
}

#   expect CODE PATTERN COMMAND...: the command ends with that code, and stdout or stderr holds the
#   pattern (a basic regular expression).
expect () {
    code=$1 pattern=$2
    shift 2
    got=0
    "$@" >out.txt 2>err.txt || got=$?
    if [ "$got" -ne "$code" ]; then
        cat out.txt err.txt >&2
        fail "'$*' ended with $got, expected $code"
    fi
    grep -q -e "$pattern" out.txt err.txt || {
        cat out.txt err.txt >&2
        fail "'$*' says nothing like '$pattern'"
    }
}

#   flip FILE: a bit in its middle is another one.
flip () {
    perl -e 'open my $file, "+<", $ARGV[0] or die "$!"; seek $file, (-s $file) / 2, 0; read $file, my $byte, 1;
        seek $file, -1, 1; print $file chr (ord ($byte) ^ 8)' "$1"
}

#   A ChatGLM of 3 tiny blocks with random weights and the tokenizer of models/tiny-glm.
make_model () {
    mkdir -p "$1.config"
    cat >"$1.config/config.json" <<END
{"architectures": ["ChatGLMModel"], "model_type": "chatglm", "position_encoding_2d": true,
 "vocab_size": 4096, "hidden_size": 32, "inner_hidden_size": 64, "num_layers": 3,
 "num_attention_heads": 2, "layernorm_epsilon": 1e-05, "max_sequence_length": 256,
 "pad_token_id": 3, "mask_token_id": 4, "gmask_token_id": 5, "bos_token_id": 7, "eos_token_id": 8,
 "tie_word_embeddings": true, "use_cache": true, "torch_dtype": "float32"}
END
    cp "$root/models/tiny-glm/ice_text.model" "$1.config/"
    "$TRUNKLINE" make-model "$1.config" "$1" --dtype fp32 >/dev/null
}

#   make_text FILE COUNT WORD: COUNT examples.
make_text () {
    i=0
    while [ $i -lt "$2" ]; do
        echo "{\"prompt\": \"$3 $i, noun\", \"completion\": \"a kind of $3 that is number $i of its kind\"}"
        i=$((i + 1))
    done >"$1"
}

make_topology () {
    cat >"$1" <<END
version: 1
name: t
model: {path: model}
train: {steps: 6, batch_size: 3, micros: 2, max_length: 64, lr: 1e-2}
checkpoint: {every: 2, keep: 2}
workers: [{name: w}]
clients:
  - {name: north, data: north.jsonl, eval: north.eval.jsonl}
  - {name: south, data: south.jsonl, eval: south.eval.jsonl}
END
}

#   Options that put a broker on three free ports: "$TRUNKLINE" up t.yaml $(free_ports).
free_ports () {
    "$TL_TESTS/free_ports" 3 | {
        read -r control clients workers
        echo --set broker.control=tcp://127.0.0.1:"$control" --set broker.clients=tcp://127.0.0.1:"$clients" \
            --set broker.workers=tcp://127.0.0.1:"$workers"
    }
}

make_site_files () {
    make_model model
    make_topology t.yaml
    make_text north.jsonl 20 animal
    make_text north.eval.jsonl 5 animal
    make_text south.jsonl 20 plant
    make_text south.eval.jsonl 5 plant
}

#   What topology/*.yaml name, where they name it: a tiny random model in place of models/tiny-glm, the text that comes
#   with the project, and some in place of WordNet's.
make_example_files () {
    make_model models/tiny-glm
    mkdir data
    cp "$root"/data/north*.jsonl "$root"/data/south*.jsonl data/
    for site in animals plants substances motion; do
        make_text data/$site.jsonl 12 $site
        make_text data/$site.eval.jsonl 4 $site
    done
}
