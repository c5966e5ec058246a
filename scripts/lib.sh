#   Shared by the scripts in this folder: where the project is, what it needs from Debian, how it is
#   built. Sourced, never run. Package lists are here and nowhere else, one line each with the reason.

set -eu
cd "$(dirname "$0")/.."

say () { printf '%s\n' "$*" >&2; }
fail () { say "$(basename "$0"): $*"; exit 1; }

packages_build='
gcc                 the C compiler
g++                 the C++ compiler, for one file: SentencePiece has no C interface
cmake               describes the build
ninja-build         runs the build
pkg-config          finds the libraries below
libzmq3-dev         ZeroMQ: sockets and CURVE encryption
libczmq-dev         CZMQ: hash tables of sessions
libsodium-dev       fingerprints and key generation
libmsgpack-dev      envelopes of messages
libsentencepiece-dev  tokenizer
libpcre2-dev        regular expressions of tokenizers
libunistring-dev    composed Unicode text, which some tokenizers want
libjansson-dev      JSON
libfyaml-dev        YAML with line and column in its complaints
libxxhash-dev       checksums of tensors
libsmartcols-dev    tables on the terminal
libsqlite3-dev      run.db, what a run keeps of itself
'
packages_demo='
wordnet-base        the definitions that play the private text
'
packages_bench='
libopenblas0-pthread  the matrix products that ours are measured against
'
packages_test='
libcmocka-dev       unit tests
clang               second compiler, and the fuzzer
libclang-rt-14-dev  run-time of the fuzzer and of clang'"'"'s sanitizers
'
packages_model='
sentencepiece       spm_train: makes the tokenizer
wordnet-base        the pre-training text
jq                  reads the figures for the card
'

#   need LIST...: installs what is missing, and says what and why; silent when everything is there.
need () {
    missing=$(printf '%s\n' "$@" | while read -r package reason; do
        [ -n "$package" ] || continue
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null) in
        installed) ;;
        *) printf '%s\t%s\n' "$package" "$reason" ;;
        esac
    done)
    [ -n "$missing" ] || return 0
    command -v apt-get > /dev/null ||
        fail "needs these packages and finds no apt-get; install them by your system's means:
$missing"
    say "Installing from Debian:"
    printf '%s\n' "$missing" | while IFS='	' read -r package reason; do
        say "    $(printf '%-22s' "$package") $reason"
    done
    root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || fail "is not root and finds no sudo; run as root: apt-get install" \
            $(printf '%s\n' "$missing" | cut -f 1)
        root=sudo
    fi
    #   The names hold no blanks: splitting them is meant.
    install="env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends"
    names=$(printf '%s\n' "$missing" | cut -f 1)
    log=$(mktemp)
    $root $install $names > "$log" 2>&1 < /dev/null ||
        { $root apt-get update -q > "$log" 2>&1 < /dev/null && $root $install $names >> "$log" 2>&1 < /dev/null; } ||
        { cat "$log" >&2; rm -f "$log"; fail "could not install the packages above; the messages say why"; }
    rm -f "$log"
}

#   build PRESET [TARGET...]: configures and builds into build/PRESET; output only when it fails.
build () {
    preset=$1
    shift
    launcher=
    command -v ccache > /dev/null && launcher="-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache"
    mkdir -p "build/$preset"
    if ! { cmake --preset "$preset" $launcher && cmake --build "build/$preset" --parallel "$(nproc)" ${1:+--target "$@"}; } \
        > "build/$preset/build.log" 2>&1; then
        grep -E -A 12 'error|Error|FAILED|warning:' "build/$preset/build.log" | head -60 >&2 || true
        fail "build of preset $preset failed; the whole output is in build/$preset/build.log"
    fi
}
