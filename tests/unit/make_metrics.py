#!/usr/bin/env python3
"""Makes tests/unit/data/metrics.jsonl: random texts and what other programs say of them.

ROUGE is rouge_score's, BLEU sacrebleu's; exact match and F1 follow the definition of SQuAD's evaluation. Chinese
text goes to them with spaces around each character, for rouge_score as made-up words, because it drops
everything but a-z and 0-9. Needs rouge_score and sacrebleu (pip).
"""
import collections
import json
import random
import re
import string
import sys

import sacrebleu
from rouge_score import rouge_scorer

WORDS = ("the a an The A An cat cats sat on mat, mat. mat! 3.14 1,000 2-3 well-known it's U.S. \"quoted\" (so) "
         "e-mail Zürich ÉCOLE naïve i I'm yes no -- ... ,. 5. .5 a. an, x_y &amp; &lt;b&gt; 50% a-\nb new\nline "
         "İstanbul Straße Москва ΑΒΓ Kelvin\u212a one two three").split(" ")
HAN = "今天天气很好我们去公园玩，他说。北京！“你好”模型训练a1"


def normalised(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(?:a|an|the)\b", " ", text).split()


def f1(one, two):
    if not one and not two:
        return 1.0
    common = sum((collections.Counter(one) & collections.Counter(two)).values())
    return 2 * common / (len(one) + len(two)) if common else 0.0


def apart(text):
    """Spaces around Han characters, and their punctuation."""
    return re.sub(r"([\u3001-\u303f\u4e00-\u9fff\uff01-\uff65])", r" \1 ", text)


def spelt(text):
    """Each Han character as a word of its own that rouge_score can read."""
    return re.sub(r"([\u4e00-\u9fff])", lambda m: " han%x " % ord(m.group(1)), text)


def case(text, references):
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    rouge = scorer.score_multi([spelt(r) for r in references], spelt(text))
    bleu = sacrebleu.sentence_bleu(apart(text), [apart(r) for r in references])
    words = [normalised(re.sub(r"([\u4e00-\u9fff])", r" \1 ", t)) for t in [text] + references]
    return dict(text=text, references=references,
                rouge1=rouge["rouge1"].fmeasure, rouge2=rouge["rouge2"].fmeasure,
                rougeL=rouge["rougeL"].fmeasure, sentence_bleu=bleu.score,
                exact=float(words[0] in words[1:]), f1=max(f1(words[0], w) for w in words[1:]))


def main():
    random.seed(1)
    cases = []
    for number in range(160):
        join = "" if number % 4 == 3 else " "
        pool = list(HAN) if number % 4 == 3 else WORDS
        base = random.choices(pool, k=random.choice([0, 1, 2, 3, 5, 8, 13, 30]))
        references = []
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            other = [w for w in base if random.random() < 0.85]
            for _ in range(random.choice([0, 0, 1, 2])):
                other.insert(random.randrange(len(other) + 1), random.choice(pool))
            references.append(join.join(other))
        cases.append(case(join.join(base), references))
    single = [c for c in cases if len(c["references"]) == 1]
    corpus = sacrebleu.corpus_bleu([apart(c["text"]) for c in single], [[apart(c["references"][0]) for c in single]])
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        for c in cases:
            out.write(json.dumps(c, ensure_ascii=False) + "\n")
        out.write(json.dumps({"corpus_bleu_of_single": corpus.score}) + "\n")


main()
