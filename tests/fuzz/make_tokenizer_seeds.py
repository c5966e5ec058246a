#!/usr/bin/env python3
"""make_tokenizer_seeds: writes tests/fuzz/corpus/tokenizer_*: small tokenizers of every file kind, with something of
everything that their readers know.

Usage: make_tokenizer_seeds.py     (needs gguf, sentencepiece; deterministic)
"""

import base64
import io
import json
import os
import tempfile

import sentencepiece
from gguf import GGUFWriter

HERE = os.path.dirname(os.path.abspath(__file__))


def put(kind, name, data):
    folder = os.path.join(HERE, "corpus", "tokenizer_" + kind)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def added(number, content, special, normalized=False):
    return {"id": number, "content": content, "special": special, "normalized": normalized, "lstrip": False,
            "rstrip": False, "single_word": False}


def hugging_face():
    vocab = {letter: i for i, letter in enumerate("ab1Ġ<|>")}
    vocab.update({"ab": 7, "Ġab": 8})
    small = {
        "added_tokens": [added(9, "<|e|>", True), added(10, "b!", False, True)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|[^\\s\\p{L}]?\\p{L}+|\\s+(?!\\S)"},
             "behavior": "Isolated", "invert": False},
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|e|>"}}, {"Sequence": {"id": "A"}}],
            "special_tokens": {"<|e|>": {"id": "<|e|>", "ids": [9]}}},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab, "merges": ["a b", ["Ġ", "ab"]]}}
    put("json", "small", json.dumps(small, ensure_ascii=False))
    gpt2 = {"pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
            "model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}
    put("json", "gpt2", json.dumps(gpt2))


def others():
    lines = [(b"ab", 256), (b"abc", 257), ("中".encode(), 258), (b" a", 259)]
    put("tiktoken", "four", "".join(f"{base64.b64encode(piece).decode()} {rank}\n" for piece, rank in lines))
    put("merges", "three", '{"a": 0, "b": 1, "#": 2, "ab": 3, "##": 4, "Ġ": 5, "Ġab": 6}\n'
        "#version: 0.2\na b\n# #\nĠ ab\n")
    put("config", "all", json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "name_or_path": "a/b", "add_bos_token": False,
        "model_max_length": 10 ** 30, "chat_template": [{"name": "default", "template": "<|im_start|>"}],
        "added_tokens_decoder": {"2": added(0, "<|im_start|>", True), "3": added(0, "<|im_end|>", True),
                                 "4": added(0, "b!", False)}}))
    put("text", "mixed", "I'm ab  12\t\n e\u0301\u00e9! 中<|im_end|><n><|blank_3|><t>\x00" + " " * 9)
    put("text", "broken", b"a\xff\xe4\xbd\xed\xa0\x80\xf0\x9f\x98b\xc3")


def sentencepieces():
    #  The model keeps the name of its rules.
    rules = "rules.tsv"
    with tempfile.TemporaryDirectory() as where:
        os.chdir(where)
        with open(rules, "w") as file:
            file.write("41\t61\nFF0C\t2C\n41 42\t62\n")
        for kind in ("unigram", "bpe"):
            model = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(["abab ab ba, aab", "bab ab a"] * 20), model_writer=model, vocab_size=12,
                model_type=kind, hard_vocab_limit=False, user_defined_symbols=["<n>"], control_symbols=["[gMASK]"],
                normalization_rule_tsv=rules, num_threads=1, minloglevel=2)
            put("spm", kind, model.getvalue())


def ggufs():
    def write(name, fill):
        path = os.path.join(HERE, "corpus", "tokenizer_gguf", name)
        writer = GGUFWriter(path, "llama")
        fill(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def bpe(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(["a", "b", "1", "ab", "<e>", "b!", "[PAD]"])
        writer.add_token_types([1, 1, 1, 1, 3, 4, 5])
        writer.add_token_merges(["a b"])
        writer.add_add_bos_token(False)
        writer.add_chat_template("<|im_start|>")

    def spm(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<unk>", "<s>", "▁", "a", "▁a", "<n>"])
        writer.add_token_scores([0.0, 0.0, -1.0, -2.0, -3.0, 0.0])
        writer.add_token_types([2, 3, 1, 1, 1, 4])
        writer.add_add_space_prefix(True)

    write("bpe", bpe)
    write("spm", spm)


if __name__ == "__main__":
    hugging_face()
    others()
    sentencepieces()
    ggufs()
