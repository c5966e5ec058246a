#   Multiple choice and written texts by eval; several prompts, stop strings and conversations by generate.
. tests/cli/lib.sh
make_site_files

cat >choice.jsonl <<'END'
{"prompt": "animal 3, noun", "choices": [" one", " another"], "answer": 0, "group": 1}
{"prompt": "plant 4", "choices": [" one", " another"], "answer": " another", "group": 1}
{"prompt": "animal 5", "choices": [" one", " another"], "answer": 1, "group": 2}
END
"$TRUNKLINE" eval --model model --data choice.jsonl --examples out.jsonl --format json >got.json
for key in accuracy macro_f1 f1 question_f1 exact_match; do
    grep -q "\"$key\": [01]" got.json || fail "no $key: $(cat got.json)"
done
grep -q '"examples": 3' got.json || fail "not 3 examples: $(cat got.json)"
[ "$(grep -c '"picked":[01],"answer":[01],.*"nll":\[[0-9.]*,[0-9.]*\]' out.jsonl)" -eq 3 ] ||
    fail "no line an example: $(cat out.jsonl)"
[ "$(stat -c %a out.jsonl)" = 600 ] || fail "who may read the examples? $(stat -c %a out.jsonl)"
"$TRUNKLINE" eval --model model --data choice.jsonl --limit 1 | grep -q ' 1$' || fail "--limit 1"

cat >texts.jsonl <<'END'
{"prompt": "animal 3, noun", "references": ["a thing", "another thing"]}
{"prompt": "plant 4", "references": "a thing"}
END
"$TRUNKLINE" eval --model model --data texts.jsonl --examples out.jsonl --max-tokens 5 --format json >got.json
for key in rouge1 rouge2 rougeL bleu sentence_bleu exact_match f1; do
    grep -q "\"$key\": [0-9]" got.json || fail "no $key: $(cat got.json)"
done
[ "$(grep -c '"tokens":5,"ended":"length"' out.jsonl)" -eq 2 ] || fail "no two texts: $(cat out.jsonl)"
cp out.jsonl alone.jsonl
"$TRUNKLINE" eval --model model --data texts.jsonl --examples out.jsonl --max-tokens 5 --batch 1 >/dev/null
cmp out.jsonl alone.jsonl || fail "together the texts are others"
#   What has a completion is measured, or written where metrics are asked for.
"$TRUNKLINE" eval t.yaml --site north | grep -q perplexity || fail "no perplexity"
"$TRUNKLINE" eval t.yaml --site north --metrics rouge,f1 --max-tokens 3 >got.txt
grep -q 'ROUGE-L' got.txt && ! grep -q BLEU got.txt || fail "not the metrics asked for: $(cat got.txt)"

evaluate () {
    "$TRUNKLINE" eval --model model --data "$@"
}
echo '{"prompt": "p", "choices": ["a", "b"], "answer": 2}' >bad.jsonl
expect 4 "bad.jsonl:1: 'answer' is 2, expected the index of a choice, from 0 to 1, or its text" evaluate bad.jsonl
echo '{"prompt": "p", "choices": [], "answer": 0}' >bad.jsonl
expect 4 "bad.jsonl:1: 'choices' is \[\], expected a list of two or more texts" evaluate bad.jsonl
printf '{"prompt": "\377", "references": "r"}\n' >bad.jsonl
expect 4 'bad.jsonl:1: byte 13 (0xff) is not valid UTF-8; save the file as UTF-8' evaluate bad.jsonl
(cat texts.jsonl && head -n 1 choice.jsonl) >bad.jsonl
expect 4 'bad.jsonl:3: the line is multiple choice, the lines before it are a text' evaluate bad.jsonl
{ printf '{"prompt": "p", "choices": ["a", "'; yes word | head -n 300 | tr '\n' ' '; echo '"], "answer": 0}'; } >bad.jsonl
expect 4 'bad.jsonl:1: the longest choice has' evaluate bad.jsonl
expect 4 "'meteor' is not known; write some of rouge,bleu,exact,f1" evaluate texts.jsonl --metrics rouge,meteor
expect 4 "expected sum, token or byte, found 'word'" evaluate choice.jsonl --per word
expect 4 'no/where/ can.t be written' evaluate choice.jsonl --examples no/where/x.jsonl
#   A prompt that is too long loses its beginning, and says so.
{ printf '{"prompt": "'; yes word | head -n 300 | tr '\n' ' '; echo '", "choices": ["a", "b"], "answer": 0}'; } >long.jsonl
expect 0 '1 of 1 prompts are too long and lost their beginning' evaluate long.jsonl

#   Several prompts are what each is alone.
generate () {
    "$TRUNKLINE" generate --model "$root/models/tiny-glm" --max-tokens 12 "$@"
}
texts () {
    sed -n 's/.*"ids":\(\[[^]]*\]\).*/\1/p'
}
printf '%s\n' '{"prompt": "animal 3"}' '{"prompt": "plant 4, noun"}' >prompts.jsonl
{ generate --prompt 'animal 3' --format jsonl; generate --prompt 'plant 4, noun' --format jsonl; } | texts >one.txt
generate --prompts prompts.jsonl --format jsonl | texts >two.txt
generate --prompt 'animal 3' --prompt 'plant 4, noun' --batch 1 --format jsonl | texts >three.txt
[ "$(wc -l <one.txt)" -eq 2 ] || fail "not two texts: $(cat one.txt)"
cmp one.txt two.txt && cmp one.txt three.txt || fail "several prompts differ from each alone"
generate --prompts prompts.jsonl --format json | grep -q '"texts": \[' || fail "no list of texts"
generate --prompts prompts.jsonl | grep -q '^\[2\] plant 4, noun$' || fail "no heads"
echo '{"text": "x"}' >bad.jsonl
expect 4 "bad.jsonl:1: 'prompt' is missing" generate --prompts bad.jsonl

#   A stop string isn't printed, and what it was made of isn't either.
text=$(generate --prompt 'animal 3')
stop=$(printf '%s' "$text" | cut -c 10-13)
case $stop in ????) ;; *) fail "the text is too short to cut: $text" ;; esac
cut=$(generate --prompt 'animal 3' --stop 'not in there' --stop "$stop")
[ "$cut" = "${text%%"$stop"*}" ] || fail "stopped before '$stop': '$cut' of '$text'"
generate --prompt 'animal 3' --stop "$stop" --format json | grep -q '"ended": "stop string"' || fail "no reason"
expect 4 'stop is empty' generate --prompt x --stop ''
broken=$(printf 'ab\377c')
expect 4 '--prompt: byte 3 (0xff) is not valid UTF-8; write' generate --prompt x --prompt "$broken"
expect 4 '--stop: byte 3 (0xff) is not valid UTF-8; write' generate --prompt x --stop "$broken"
expect 4 '--system: byte 3 (0xff) is not valid UTF-8; write' generate --chat --system "$broken"
echo "$broken" >line.txt
expect 4 'the line: byte 3 (0xff) is not valid UTF-8; write' generate --chat <line.txt
#   A high penalty: no token comes twice.
generate --prompt x --repetition-penalty 100 --format jsonl | texts | tr -d '[]' | tr ',' '\n' | sort | uniq -d >twice.txt
[ ! -s twice.txt ] || fail "came twice: $(cat twice.txt)"

#   A conversation from a pipe: an answer a line, empty lines are nothing, /exit ends.
printf 'first\n\nsecond\n/exit\nthird\n' | generate --chat --format jsonl >chat.jsonl
[ "$(wc -l <chat.jsonl)" -eq 2 ] || fail "not two answers: $(cat chat.jsonl)"
grep -q '"prompt":"second"' chat.jsonl || fail "no second turn: $(cat chat.jsonl)"
[ "$(printf 'first\n' | generate --chat --format jsonl | texts)" = "$(generate --chat --prompt first --format jsonl | texts)" ] ||
    fail "a prompt as a turn differs from the turn"
printf '' | generate --chat >chat.txt
[ ! -s chat.txt ] || fail "nothing said, and answered: $(cat chat.txt)"
#   It goes on for longer than the model reads: the oldest turns are forgotten.
yes 'some words, and more of them, that are said again and again, and then once more' | head -n 12 | generate --chat >chat.txt 2>err.txt
[ -s chat.txt ] || fail "no answers: $(cat err.txt)"
grep -q 'longer than the model reads' err.txt || fail "forgets nothing: $(cat err.txt)"
expect 4 'system is part of a conversation' generate --prompt x --system y
expect 4 'a conversation has no blank to fill' generate --chat --cloze
