#   Every topology/*.yaml runs: two steps of all its parts, on this machine, with a tiny random model in place of its own.
. tests/cli/lib.sh

make_example_files
count=0
for file in "$root"/topology/*.yaml; do
    name=$(sed -n 's/^name: *//p' "$file")
    sites=$(sed -n '/^clients:/,$s/^ *- {name: \([a-z]*\),.*/\1/p' "$file")
    set --
    index=0
    for site in $sites; do
        set -- "$@" --set clients.$index.host=localhost
        index=$((index + 1))
    done
    #   Parts that only wait have nothing to save.
    trunk=trunk-1 saved='adapters and summary.json are'
    grep -q '^model: {synthetic' "$file" && sites= trunk= saved='^summary.json is'
    expect 0 "$saved in runs/$name" "$TRUNKLINE" up "$file" --set train.steps=2 \
        --set broker.host=localhost --set workers.0.host=localhost "$@" $(free_ports)
    for part in $sites $trunk; do
        [ -s "runs/$name/$part/adapter/adapter_model.safetensors" ] || fail "$name: $part saved no adapter"
    done
    grep -q '"steps": 2' "runs/$name/summary.json" || fail "$name: the summary has no two steps"
    count=$((count + 1))
done
[ $count -ge 4 ] || fail "only $count topologies were run"
