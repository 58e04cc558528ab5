"""Writes what Hugging Face's tokenizers make of long random text, under many settings.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
                                          # and Python 3.11, whose tables are those of Unicode 14
    python make_random.py                 # writes random/assigned.txt and random/cases.jsonl
    python make_random.py LINE SEED       # shows one text, its ids and its decoded text

random/assigned.txt: the code points that Unicode 14 assigns, a range a line.
random/cases.jsonl, a line: "tokenizer" is the folder, "set" what is changed of its tokenizer.json (by
JSON pointer), "pre" the name of the same splits in GGUF files, "words" what is mixed into the text,
"cases", by seed: [ids, their hash with special tokens parsed, as text, the decoded text's hash]
(FNV-1a of 64 bits, of ids as four bytes, least first). The text of a seed is made by `text` here and,
with the same numbers, in tests/engine/tokenizer/random_text_test.cc.
"""
import json
import pathlib
import sys
import unicodedata

from tokenizers import Tokenizer

from make_unigram import as_text

HERE = pathlib.Path(__file__).parent
CASES = 25
MASK = (1 << 64) - 1
SPACES = [" ", "  ", "\n", "\t", "\r\n", "\n\n", "   ", "\u00a0", "\u3000"]
LETTERS = "etaoinshrdlu"

CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TITLE = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{TITLE}*{SMALL}+|[^\r\n\p{{L}}\p{{N}}]?{TITLE}+{SMALL}*|"
          rf"\p{{N}}|{REST}")
GPT4O = (rf"[^\r\n\p{{L}}\p{{N}}]?{TITLE}*{SMALL}+{ENDS}|"
         rf"[^\r\n\p{{L}}\p{{N}}]?{TITLE}+{SMALL}*{ENDS}|\p{{N}}{{1,3}}|{REST}")
DEEPSEEK = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
            r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
MARK = "\u2581"


def splits(*patterns):
    parts = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
             for p in patterns]
    parts.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": False})
    return {"/pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def added(token_id, content, **flags):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": False, **flags}


def variants():
    """(folder, changes, name of the splits in GGUF files)"""
    merged = {"/model/ignore_merges": False}
    yield "llama3_style", {}, "llama-bpe"
    yield "qwen2_style", {}, "qwen2"
    yield "digits_style", {}, "smollm"
    yield "llama3_style", splits(TEKKEN), "tekken"
    yield "llama3_style", {**splits(GPT4O), **merged}, "gpt-4o"
    yield "llama3_style", {**splits(*DEEPSEEK), **merged}, "deepseek-v3"
    yield "llama3_style", {**splits(LLAMA3), **merged}, "dbrx"
    yield "llama3_style", splits(CL100K), None
    for form in ("NFD", "NFKC", "NFKD", "Lowercase"):
        yield "llama3_style", {"/normalizer": {"type": form}}, None
    yield "llama3_style", {"/normalizer": sequence(
        "normalizers", {"type": "NFKC"}, {"type": "Lowercase"},
        {"type": "Strip", "strip_left": True, "strip_right": True})}, None
    yield "gemma_style", {}, None
    yield "llama2_style", {}, None
    yield "llama2_style", {"/normalizer": sequence(
        "normalizers", {"type": "NFKC"}, replace(" {2,}", " ", "Regex"),
        {"type": "Prepend", "prepend": MARK}, replace(" ", MARK))}, None
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            yield "llama2_style", {"/normalizer": None, "/pre_tokenizer": metaspace(scheme, split)}, None
    yield "llama2_style", {"/normalizer": None, "/pre_tokenizer": metaspace("always", True),
                           "/decoder": sequence("decoders", metaspace("always", True),
                                                {"type": "ByteFallback"}, {"type": "Fuse"})}, None
    for fuse in (True, False):
        yield "gemma_style", {"/model/byte_fallback": False, "/model/fuse_unk": fuse}, None
    yield "gemma_style", {"/model/unk_token": None, "/model/byte_fallback": False}, None
    yield "llama2_style", {"/added_tokens": [
        added(0, "<pad>", special=True), added(1, "</s>", special=True), added(2, "<s>", special=True),
        added(3, "<unk>", special=True, normalized=True),
        added(3500, "the", single_word=True, normalized=True), added(3501, "\u00e9", lstrip=True),
        added(3502, "[TOOL]", rstrip=True, lstrip=True)]}, None
    for changes in unigram_variants():
        yield "unigram_style", changes, None


def unigram_variants():
    file = json.loads((HERE / "unigram_style/tokenizer.json").read_text(encoding="utf-8"))
    precompiled = file["normalizer"]["normalizers"][0]
    yield {}
    # As XLM-RoBERTa, of several versions.
    yield {"/normalizer": precompiled}
    yield {"/normalizer": precompiled, "/pre_tokenizer": metaspace("always", True)}
    # As ALBERT.
    yield {"/normalizer": sequence(
        "normalizers", replace("``", '"'), replace("''", '"'), {"type": "NFKD"}, {"type": "StripAccents"},
        {"type": "Lowercase"}, precompiled), "/pre_tokenizer": metaspace("always", True)}
    # As those that Hugging Face's tokenizers train.
    yield {"/normalizer": sequence("normalizers", {"type": "Nmt"}, {"type": "NFKC"},
                                   replace(" {2,}", " ", "Regex")),
           "/pre_tokenizer": metaspace("first", True)}
    # With bytes, and words that go on over spaces.
    whole = {"/pre_tokenizer": None, "/model/byte_fallback": True, "/decoder": sequence(
        "decoders", replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0})}
    yield {**whole, "/normalizer": sequence(
        "normalizers", precompiled, {"type": "Prepend", "prepend": MARK}, replace(" ", MARK))}
    yield {**whole, "/normalizer": None, "/pre_tokenizer": metaspace("never", False)}
    yield {"/normalizer": None, "/pre_tokenizer": metaspace("always", False)}
    yield {"/added_tokens": [
        added(0, "<pad>", special=True), added(1, "</s>", special=True), added(2, "<unk>", special=True),
        added(1256, "the", single_word=True, normalized=True), added(1257, "\u00e9", lstrip=True),
        added(1258, "[TOOL]", rstrip=True, lstrip=True)]}


def apply(file, changes):
    for pointer, value in changes.items():
        target, keys = file, pointer.split("/")[1:]
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
    return file


class Random:
    """SplitMix64 (Steele, Lea, Flood 2014)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % bound


def text(seed, ranges, words):
    random = Random(seed)
    out = []
    for _ in range(300):
        kind = random.below(16)
        if kind < 4:
            word = "".join(LETTERS[random.below(len(LETTERS))] for _ in range(1 + random.below(9)))
            out.append(word.upper() if random.below(4) == 0 else word)
        elif kind == 4:
            out.append("".join(chr(48 + random.below(10)) for _ in range(1 + random.below(6))))
        elif kind < 7:
            out.append(SPACES[random.below(len(SPACES))])
        elif kind == 7:
            out.append(chr(33 + random.below(94)))
        elif kind < 13:
            first, last = ranges[random.below(len(ranges))]
            for _ in range(1 + random.below(8)):
                out.append(chr(first + random.below(last - first + 1)))
        elif kind == 13:
            at = random.below(sum(last - first + 1 for first, last in ranges))
            for first, last in ranges:
                if at <= last - first:
                    out.append(chr(first + at))
                    break
                at -= last - first + 1
        elif kind == 14:
            out.append(chr(0x300 + random.below(0x70)))
        else:
            out.append(words[random.below(len(words))])
    return "".join(out)


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return f"{value:016x}"


def fnv_ids(ids):
    return fnv(b"".join(i.to_bytes(4, "little") for i in ids))


def assigned():
    ranges = []
    for c in range(0x110000):
        if unicodedata.category(chr(c)) in ("Cn", "Co", "Cs"):
            continue
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return ranges


def load(folder, changes):
    file = json.loads((HERE / folder / "tokenizer.json").read_text(encoding="utf-8"))
    file = apply(file, changes)
    words = [token["content"] for token in file["added_tokens"]] + ["don't", "'LL", "e\u0301", MARK]
    tokenizer = Tokenizer.from_str(json.dumps(file))
    plain = as_text(file) if file["model"]["type"] == "Unigram" else Tokenizer.from_str(json.dumps(file))
    plain.encode_special_tokens = True
    return tokenizer, plain, words


def encode(tokenizer, sample):
    return tokenizer.encode(sample, add_special_tokens=False).ids


def show(line, seed):
    folder, changes, _ = list(variants())[line]
    tokenizer, plain, words = load(folder, changes)
    sample = text(seed, assigned(), words)
    ids = encode(tokenizer, sample)
    print(json.dumps({"text": sample, "ids": ids, "plain": encode(plain, sample),
                      "decoded": tokenizer.decode(ids, skip_special_tokens=False)}))


def main():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    ranges = assigned()
    with open(HERE / "random/assigned.txt", "w", encoding="utf-8") as out:
        out.writelines(f"{first:x} {last:x}\n" for first, last in ranges)
    with open(HERE / "random/cases.jsonl", "w", encoding="utf-8") as out:
        for folder, changes, pre in variants():
            tokenizer, plain, words = load(folder, changes)
            cases = []
            for seed in range(CASES):
                sample = text(seed, ranges, words)
                ids = encode(tokenizer, sample)
                decoded = tokenizer.decode(ids, skip_special_tokens=False)
                cases.append([len(ids), fnv_ids(ids), fnv_ids(encode(plain, sample)),
                              fnv(decoded.encode())])
            line = {"tokenizer": folder, "set": changes, "words": words, "cases": cases}
            if pre:
                line["pre"] = pre
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        show(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
