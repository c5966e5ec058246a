#!/bin/sh
#  tamper.sh GOLDEN_CHECK CASE_DIR: golden_check passes a case and fails every copy of it that was tampered
#  with: a file too many, one missing, a kind of tensor missing, one value wrong.
set -eu
check=$1
case_dir=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fresh () {
    rm -rf "$work/case"
    cp -r "$case_dir" "$work/case"
    chmod -R u+w "$work/case"
}

expect () {   #  expect STATUS WHAT
    status=0
    "$check" "$work/case" > "$work/out" || status=$?
    if [ "$status" != "$1" ]; then
        echo "$2: expected exit code $1, got $status"
        cat "$work/out"
        exit 1
    fi
}

#  The last value of a file becomes about its negative double (the bytes of -2 x 2^n are easy to write).
spoil () {
    size=$(wc -c < "$1")
    printf '\000\000\000\300' | dd of="$1" bs=1 seek=$((size - 4)) conv=notrunc 2> /dev/null
}

mkdir "$work/case"
expect 1 "an empty directory"
grep -q 'is no case of golden vectors: it holds no case.json' "$work/out"
fresh
expect 0 "untouched"
if [ -d "$case_dir/gguf" ]; then   #  a case of GGUF files
    for file in forward dequant; do
        fresh
        rm "$work/case/$file-mixed.safetensors"
        expect 1 "without $file-mixed.safetensors"
        fresh
        spoil "$work/case/$file-mixed.safetensors"
        expect 1 "last value of $file-mixed.safetensors changed"
    done
    fresh
    spoil "$work/case/gguf/tiny-mixed.gguf"
    expect 1 "last values of the GGUF file changed"
    fresh
    echo > "$work/case/notes.txt"
    expect 1 "unknown file"
    fresh
    rm "$work/case/gguf/tiny-mixed.gguf"
    expect 1 "no GGUF file"
    echo "every tampered copy was noticed"
    exit 0
fi
for file in forward backward full lora lora/init/adapter_model lora/final/adapter_model; do
    fresh
    rm "$work/case/$file.safetensors"
    expect 1 "without $file.safetensors"
done
if [ -f "$case_dir/ptuning.safetensors" ]; then
    fresh
    rm "$work/case/ptuning.safetensors"
    expect 1 "without ptuning.safetensors"
    fresh
    spoil "$work/case/ptuning.safetensors"
    expect 1 "last value of ptuning.safetensors changed"
fi
for file in backward full lora/final/adapter_model; do
    fresh
    spoil "$work/case/$file.safetensors"
    expect 1 "last value of $file.safetensors changed"
done
fresh
echo > "$work/case/notes.txt"
expect 1 "unknown file"
fresh
cp "$work/case/lora.safetensors" "$work/case/full.safetensors"
expect 1 "tensors of another kind"
fresh
: > "$work/case/case.json"
expect 1 "empty case.json"
rm -rf "$work/case"
expect 1 "no such directory"
echo "every tampered copy was noticed"
