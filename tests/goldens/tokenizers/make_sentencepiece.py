"""Trains small models with SentencePiece and writes what it makes of tricky text.

    pip install sentencepiece==0.2.3 protobuf
    python make_sentencepiece.py [FOLDER...]          # writes sentencepiece/

A folder has tokenizer.model and cases.jsonl: {"text", "ids", "decoded"}; "decoded" is absent where an
unknown character is in the text. pieces.json is the vocabulary as GGUF files hold it, with the charsmap in base 64.
"""
import base64
import json
import pathlib
import random
import sys

import sentencepiece

import charsmap

HERE = pathlib.Path(__file__).parent / "sentencepiece"
LETTERS = ["the", "wind", "from", "north", "sea", "sand", "storm", "and", "dust", "over", "hill",
           "blows", "warm", "dry", "often", "ends", "begins", "at", "night", "in", "spring", "12",
           "345", "km/h", "Wind", "Sea", "don't", "it's", "größer", "été", "море", "ветер", "海",
           "風", "砂"]
FOLDERS = {
    # As Llama 2: a space in front, bytes for what has no piece.
    "dummy_prefix": dict(byte_fallback=True, add_dummy_prefix=True, split_digits=True,
                         control_symbols=["<|user|>"]),
    # As Gemma: no space in front, runs that are never taken apart.
    "user_defined": dict(byte_fallback=True, add_dummy_prefix=False, split_digits=True,
                         user_defined_symbols=["\n\n", "\n", "\u2581\u2581", "\u2581\u2581\u2581\u2581",
                                               "<table>", "sand\u2581storm"]),
    "prefix_and_user_defined": dict(byte_fallback=True, add_dummy_prefix=True,
                                    user_defined_symbols=["<tool>", "\u2581\u2581", "ind"]),
    # Without bytes: an unknown token; white space at the ends and in runs goes.
    "unknown": dict(byte_fallback=False, add_dummy_prefix=True, remove_extra_whitespaces=True),
    # Text is rewritten first, but for user-defined tokens.
    "charsmap": dict(byte_fallback=True, add_dummy_prefix=True, remove_extra_whitespaces=True,
                     normalization_rule_name="charsmap", user_defined_symbols=["\uff21\uff22", "<x>"]),
    # As T5.
    "unigram": dict(model_type="unigram", byte_fallback=False, add_dummy_prefix=True,
                    remove_extra_whitespaces=True, normalization_rule_name="charsmap",
                    control_symbols=["<|user|>"], user_defined_symbols=["<tool>", "\uff21\uff22", "nd"]),
    # With bytes, white space as it is.
    "unigram_bytes": dict(model_type="unigram", byte_fallback=True, add_dummy_prefix=False,
                          split_digits=True, user_defined_symbols=["\n\n", "\u2581\u2581", "<table>"]),
}
TRICKY = ["", " ", "  ", "the", " the", "  the  ", "the\n\nwind\n", "\t", "a b  c   d    e", "\u2581",
          "\u2581the", "the\u2581wind", "<s>", "</s> x", "<unk>", "<|user|>", "<0x0A>", "<table>the<table>",
          "<tool>the <tool> wind<tool>", "sand storm", "sand  storm", "windindind", "1234567", "don't",
          "été", "e\u0301te\u0301", "風が海", "\U0001f600", "\U0001f600\U0001f601 \u200d", "\u00a0\u3000",
          "aaaaaaaaaaaaaaaaaaaaaaaa", "          ", "the" * 30, "\r\n", "x\x00y", "\n \n  \n"]
# For those with a charsmap: what rules are for, and what they are not for.
REWRITTEN = ["\uff34\uff48\uff45 \uff57ind", "\uff21\uff22", "\uff21\uff22\uff23", "e\u0301te\u0301 e\u0301\u0301",
             "s\u0323\u0307", "\u00a8", " \u00a8 \u00a8", "\ufdfa the", "the\u3000\u3000wind\t\n", "\u2460\u0301",
             "\ufb01nd \ufb01", "\u0958\u0308", "a\x01b\x02 \x03c", "\u2581\u2581the\u2581", "\uff76\uff9e\uff76",
             "\u1112\u1161\u11ab", "w\u200bind"]


def training_text():
    generator = random.Random(5)
    lines = []
    for _ in range(1500):
        words = [generator.choice(LETTERS) for _ in range(generator.randint(3, 12))]
        lines.append(generator.choice([" ", " ", "  ", ", "]).join(words) + generator.choice(".!?"))
    return lines


def texts(rewritten):
    yield from TRICKY
    yield from rewritten
    generator = random.Random(6)
    pieces = LETTERS + TRICKY[3:] + rewritten + [" ", "  ", "\n", "\n\n", ".", "-", "q", "Z", "\u03b1", "\u65e5"]
    for _ in range(80):
        yield "".join(generator.choice(pieces) for _ in range(generator.randint(2, 25)))


def main():
    for name in sys.argv[1:] or FOLDERS:
        settings = FOLDERS[name]
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        model = charsmap.train(training_text(), **{
            "model_type": "bpe", "vocab_size": 480, "hard_vocab_limit": False, "character_coverage": 1.0,
            "normalization_rule_name": "identity", "remove_extra_whitespaces": False, **settings})
        (folder / "tokenizer.model").write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        count = processor.vocab_size()
        kinds = [2 if processor.is_unknown(i) else 3 if processor.is_control(i) else
                 6 if processor.is_byte(i) else 1 for i in range(count)]
        for symbol in settings.get("user_defined_symbols", []):
            kinds[processor.piece_to_id(symbol)] = 4
        pieces = {"tokens": [processor.id_to_piece(i) for i in range(count)],
                  "scores": [processor.get_score(i) for i in range(count)],
                  "types": kinds, "add_space_prefix": settings["add_dummy_prefix"],
                  "remove_extra_whitespaces": settings.get("remove_extra_whitespaces", False)}
        rules = charsmap.of_model(model)
        if rules:
            pieces["charsmap"] = base64.b64encode(rules).decode()
        with open(folder / "pieces.json", "w", encoding="utf-8") as out:
            json.dump(pieces, out)
        with open(folder / "cases.jsonl", "w", encoding="utf-8") as out:
            for text in texts(REWRITTEN if rules else []):
                ids = processor.encode(text)
                case = {"text": text, "ids": ids}
                if processor.unk_id() not in ids:
                    case["decoded"] = processor.decode(ids)
                out.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()
