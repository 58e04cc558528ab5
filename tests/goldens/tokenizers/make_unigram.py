"""Trains unigram_style with Hugging Face's tokenizers, and writes what they make of tricky text.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
    python make_unigram.py

tokenizer.json has the shape of T5's, with bytes among its entries, as models with byte fallback have
them. make_random.py changes it to the shapes of others.
"""
import base64
import json
import pathlib
import random

from tokenizers import Tokenizer, models, trainers

import charsmap
from make_sentencepiece import LETTERS, REWRITTEN, TRICKY

FOLDER = pathlib.Path(__file__).parent / "unigram_style"
SPECIAL = ["<pad>", "</s>", "<unk>", "<mask>", "<extra_id_0>"]
MARK = "\u2581"
WORDS = LETTERS + ["Die", "Straße", "führt", "zum", "Hafen", "l'eau", "où", "Москва", "город", "東京", "日本語",
                   "서울", "한국어", "नमस्ते", "مرحبا", "hello", "world", "token", "ization", "1990", "2,5"]


def training_text():
    generator = random.Random(7)
    for _ in range(3000):
        words = [generator.choice(WORDS) + generator.choice(["", "", "s", "ing", "er", "ed"])
                 for _ in range(generator.randint(3, 12))]
        yield MARK + MARK.join(words) + generator.choice(".!?")
    for c in range(33, 127):  # each of them an entry
        yield chr(c) * 2


def vocabulary():
    tokenizer = Tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(vocab_size=1000, special_tokens=SPECIAL, unk_token="<unk>",
                                      show_progress=False)
    tokenizer.train_from_iterator(training_text(), trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    count = len(SPECIAL)
    return pieces[:count] + [[f"<0x{b:02X}>", 0.0] for b in range(256)] + pieces[count:]


def added(token_id, content, **flags):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True, **flags}


def main():
    metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    rules = base64.b64encode(charsmap.charsmap()).decode()
    file = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, content, lstrip=content == "<mask>") for i, content in enumerate(SPECIAL)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": rules},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary(), "byte_fallback": False},
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")
    (FOLDER / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": None, "eos_token": "</s>"}), encoding="utf-8")
    tokenizer = Tokenizer.from_str(json.dumps(file))
    with open(FOLDER / "tokenize.jsonl", "w", encoding="utf-8") as out:
        for text in TRICKY + REWRITTEN + ["x <mask> y<extra_id_0>z</s>", "Straße führt, 2,5", "日本語 한국어 नमस्ते"]:
            # Control tokens that are text are no ids here, where Hugging Face's model makes them:
            # random/cases.jsonl has that case.
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            line = {"text": text, "ids": ids, "ids_special": tokenizer.encode(text).ids,
                    "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                    "decoded_skip": tokenizer.decode(ids)}
            if not any(content in text for content in SPECIAL):
                out.write(json.dumps(line) + "\n")
                continue
            line["ids_plain"] = as_text(file).encode(text, add_special_tokens=False).ids
            out.write(json.dumps(line) + "\n")


def as_text(file):
    """A tokenizer to which control tokens are text like any other: neither found beforehand nor
    entries that the model could make, as Hugging Face's Unigram does."""
    file = json.loads(json.dumps(file))
    special = {token["content"] for token in file["added_tokens"] if token["special"]}
    file["added_tokens"] = [token for token in file["added_tokens"] if not token["special"]]
    file["post_processor"] = None
    for i, entry in enumerate(file["model"]["vocab"]):
        if entry[0] in special:
            entry[0] = f"\ue000{i}"
    return Tokenizer.from_str(json.dumps(file))


if __name__ == "__main__":
    main()
