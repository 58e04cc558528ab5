"""Writes variants.jsonl: what Hugging Face's tokenizers make of tricky text, under many settings.

    pip install tokenizers==0.23.3
    python3 make_variants.py ../../../goldens/tokenizers/qwen2_style/tokenizer.json > variants.jsonl

A line is a change to that tokenizer.json ("set": keys of the root that take its place) with
"cases": [text, ids with special tokens parsed, ids with special tokens as text; absent where equal].
"""
import copy
import json
import random
import sys

from tokenizers import Tokenizer

random.seed(20)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
              "use_regex": False}
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def pre_tokenizer(*steps, **byte_level):
    return {"pre_tokenizer": {"type": "Sequence",
                              "pretokenizers": [*steps, dict(BYTE_LEVEL, **byte_level)]}}


def added(token_id, content, flags=""):
    return {"id": token_id, "content": content, "single_word": "w" in flags, "lstrip": "l" in flags,
            "rstrip": "r" in flags, "normalized": "n" in flags, "special": "s" in flags}


def variants():
    yield {}
    yield pre_tokenizer(split(O200K))
    yield pre_tokenizer(split(CL100K))
    yield pre_tokenizer(split(CL100K), add_prefix_space=True)
    yield pre_tokenizer(use_regex=True, add_prefix_space=True)
    yield pre_tokenizer({"type": "Digits", "individual_digits": False}, use_regex=True)
    yield pre_tokenizer({"type": "Digits", "individual_digits": True}, use_regex=True)
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in (False, True):
            yield pre_tokenizer(split(r"\s|[aeiou]", behavior, invert))
    yield pre_tokenizer(split(".", kind="String"))
    for pattern in [r"\w+", r"[\w-]+|\W", r"\W+", r"[^\S\r\n]+|\n", r"[\S]+", r"\d+|\D",
                    r"^\s+|\s+$", r"(?<!\S)\S", r"\v|\f|\u00e9|\x{1F389}",
                    r"\p{Han}+|\p{Hiragana}|\p{Sc}|\p{^L}", r"(?>a+)b|a", r"a{2}|b{1,}c|x{1,2}?",
                    r"\A.|.\z", r"[-a]+|[a\-z]|[x-]", r"(?i:ab|K|S)+", r"[\]\[]+|\}|\{|]|}",
                    r"\p{Common}|\p{Arabic}+|\p{Greek}"]:
        yield pre_tokenizer(split(pattern))
    plain = {"normalizer": None}
    yield {**plain, "added_tokens": [added(3000, "<a>", "lr"), added(3001, "<ab>", "s"),
                                     added(3002, "<a"), added(3003, "  ", "l")]}
    yield {**plain, "added_tokens": [added(3000, "foo", "w"), added(2422, "fo", "ws"),
                                     added(3001, " b", "n"), added(3002, "<a>", "lrs")]}
    yield {"added_tokens": [added(3000, "\u00e9!", "n"), added(3001, "\u00c5b", "wns"),
                            added(3002, "<a>", "rn"), added(3003, "   ")]}


WORDS = ["'s", "'LL", "'\u017f", "Hello", "don't", "12345", "e\u0301", "\uac00", "\u1100\u1161\u11a8",
         "<|im_start|>", "<think>", "\n\n", "\r\n", "\t", "...", "\u65e5\u672c", "\U0001f389",
         "<a>", "<ab>", "<a", "foo", "fo", "aab", "K", "\u212a", "\u212b", "[]{}", "xx", "-", "_",
         "\u0663", "\u00b2", "\u00bd", "a\u0327\u0301", "x\u1acb\u0327", "\U0001e2ec\u0334",
         "\u0645\u0631", "\u03b1", "e\u0301!", "\u212bb"]
SPACES = " \n\r\t\v\f\x1c\x85\u00a0\u1680\u180e\u2003\u200b\u200d\u2028\u2029\u202f\u3000\ufeff"


def text():
    out = []
    for _ in range(random.randint(1, 14)):
        kind = random.random()
        if kind < 0.3:
            out.append(random.choice(SPACES))
        elif kind < 0.4:
            out.append(" " * random.randint(1, 4))
        elif kind < 0.8:
            out.append(random.choice(WORDS))
        else:
            out.append(random.choice("abcXYZ0129'\"-_ .bx"))
    return "".join(out)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        base = json.load(file)
    for change in variants():
        tokenizer = Tokenizer.from_str(json.dumps({**copy.deepcopy(base), **change}))
        cases = []
        for _ in range(30):
            case = [text()]
            for as_text in (False, True):
                tokenizer.encode_special_tokens = as_text
                ids = tokenizer.encode(case[0], add_special_tokens=False).ids
                if ids not in case:
                    case.append(ids)
            cases.append(case)
        print(json.dumps({"set": change, "cases": cases}, separators=(",", ":")))


main()
