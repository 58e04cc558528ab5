"""Tokenizers that nobody should trust, as further cases of hostile_files.py."""
import base64
import itertools
import json
import os
import struct

from hostile_files import (FLOAT32, GPT2, INT32, LLAMA, STRING, case, cases, change_json, gguf_array, gguf_key,
                           gguf_model, gguf_string, write)


def numbered(count):
    """Members of a JSON object, each after a comma: "NUMBER":NUMBER."""
    block = "".join(f',"@{i:04}":@{i:04}' for i in range(10_000))
    return (block.replace("@", str(i)) for i in range(1, count // 10_000 + 1))


def write_tokenizer(folder, vocabulary, merges=(), first='"!":0'):
    """tokenizer.json alone: no other file asks for tokens that it does not have."""
    os.remove(os.path.join(folder, "tokenizer_config.json"))
    write(folder, "tokenizer.json", (piece for pieces in (
        ['{"version":"1.0","pre_tokenizer":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},'
         '"model":{"type":"BPE","vocab":{' + first], vocabulary, ['},"merges":['], merges, ["]}}"])
        for piece in pieces))


@case
def ten_million_entries(folder):
    write_tokenizer(folder, numbered(10_000_000))


@case
def ten_million_entries_of_one_id(folder):
    def blocks():
        block = "".join(f',"@{i:04}":1' for i in range(10_000))
        return (block.replace("@", str(i)) for i in range(1, 1001))
    write_tokenizer(folder, blocks())


@case
def a_million_entries(folder):
    """As many as are taken: still no more memory, and too many for the model."""
    write_tokenizer(folder, numbered(1_000_000))


def write_unigram(folder, pieces, charsmap="AAAA"):
    """`pieces`: elements of a JSON array, each after a comma."""
    os.remove(os.path.join(folder, "tokenizer_config.json"))
    write(folder, "tokenizer.json", itertools.chain(
        ['{"normalizer":{"type":"Precompiled","precompiled_charsmap":"', charsmap, '"},'
         '"decoder":{"type":"Fuse"},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0]'],
        pieces, ["]}}"]))


GOOD_CHARSMAP = base64.b64encode(b"\4" + bytes(8)).decode()


@cases({"a_million": lambda: ("".join(f',["{i:03}{j:04}",-1]' for j in range(10_000)) for i in range(104)),
        # Nearly all of each entry belongs to it alone.
        "beginnings": lambda: ("".join(f',["{i:03}{j:04}{"a" * 100}",-1]' for j in range(10_000))
                               for i in range(30)),
        # All of them begin alike.
        "ends": lambda: ("".join(f',["{"a" * 500}{i:03}{j:04}",-1]' for j in range(10_000))
                         for i in range(10)),
        "long": lambda: [',["' + "a" * 1_000_000 + '",-1]'], "no_pairs": lambda: [",[]" * 1_000_000],
        "deep": lambda: ["," + "[" * 1_000_000], "texts": lambda: [',"a"' * 1_000_000],
        "infinite": lambda: [',["a",-1e400]']})
def unigram(folder, pieces):
    write_unigram(folder, pieces(), GOOD_CHARSMAP)


@cases({"empty": b"", "no_trie": bytes(4), "trie_of_4_gigabytes": b"\xff" * 8, "cut": b"\4\0\0\0abc",
        "long_text": b"\4" + bytes(7) + b"a" * 100, "not_utf8": b"\4" + bytes(7) + b"\xff",
        "large": b"\4" + bytes(3_200_000)})
def charsmap(folder, value):
    write_unigram(folder, [], base64.b64encode(value).decode())


@case
def ten_million_merges(folder):
    def blocks():
        for i in range(1000):
            yield ('"! !",' * 10_000)[: None if i < 999 else -1]
    write_tokenizer(folder, [',"!!":1'], blocks())


@case
def a_million_merges(folder):
    """Nearly as many as are taken, all of them without their entries."""
    def blocks():
        for i in range(90):
            yield "".join(f'"{i:02}{j:04} x",' for j in range(10_000))
        yield '"x x"'
    write_tokenizer(folder, [',"x":1'], blocks())


@case
def a_string_of_100_megabytes(folder):
    write(folder, "tokenizer.json", ['{"version":"', *["x" * 1_000_000] * 100, '"}'])


@case
def white_space_of_100_megabytes(folder):
    write(folder, "tokenizer.json", ["{", *[" " * 1_000_000] * 100, "}"])


@case
def a_thousand_patterns(folder):
    split = {"type": "Split", "pattern": {"Regex": "\\p{L}+"}, "behavior": "Isolated"}
    change_json(folder, "tokenizer.json",
                lambda t: t.update(pre_tokenizer={"type": "Sequence",
                                                  "pretokenizers": [split] * 1000}))


@case
def an_id_of_two_billion(folder):
    write_tokenizer(folder, [',"a":2147483647'])


@case
def ten_million_added_tokens(folder):
    entry = '{"id":1,"content":"a"},'
    write(folder, "tokenizer.json", ['{"added_tokens":[', *[entry * 10_000] * 1000, "0]}"])


@case
def gguf_of_ten_million_tokens(folder):
    block = b"".join(gguf_string(f"@@@@{i:04}") for i in range(10_000))
    tokens = b"".join(block.replace(b"@@@@", b"%04d" % i) for i in range(1000))
    return gguf_model(folder, LLAMA + GPT2 + [
        gguf_array("tokenizer.ggml.tokens", STRING, 10_000_000, tokens)])


@case
def gguf_of_no_tokens(folder):
    return gguf_model(folder, LLAMA + GPT2 + [
        gguf_array(f"tokenizer.ggml.{name}", STRING, 0, b"") for name in ("tokens", "merges")])


@case
def no_vocabulary(folder):
    write_tokenizer(folder, [], first="")


@case
def gguf_of_empty_strings(folder):
    return gguf_model(folder, LLAMA + GPT2 + [
        gguf_array("tokenizer.ggml.tokens", STRING, 1_000_000, b"\0" * 8_000_000)])


def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def piece(text):
    """A piece of a tokenizer.model, with the score 0."""
    inner = b"\x0a" + varint(len(text)) + text
    return b"\x0a" + varint(len(inner)) + inner


BPE = b"\x12\x02\x18\x02"  # trainer_spec { model_type: BPE }
UNIGRAM = b"\x12\x02\x18\x01"  # the last one counts
UNKNOWN = b"\x0a\x09\x0a\x05<unk>\x18\x02"


@cases({"empty": lambda: [], "endless": lambda: [b"\x0a" + b"\xff" * 100],
        "cut": lambda: [piece(b"a")[:-1]], "group": lambda: [piece(b"a"), b"\x0b"],
        "binary": lambda: [bytes(range(256)) * 1000],
        "same": lambda: [piece(b"a") * 1_000_000], "without_text": lambda: [b"\x0a\x00" * 1_000_000],
        "two_million": lambda: (piece(b"%07d" % i) for i in range(2_000_000)),
        "a_million": lambda: (piece(b"%07d" % i) for i in range(1_000_000)),
        "runs": lambda: (piece(b"a" * i) for i in range(1, 3000)),
        "long": lambda: [piece(b"a" * 50_000_000), piece(b"a")],
        "charsmap": lambda: [piece(b"a"), b"\x1a\x06\x12\x04\xff\xff\xff\xff"],
        "unigram": lambda: [piece(b"a"), UNIGRAM],
        "unigram_a_million": lambda: itertools.chain(
            [UNKNOWN], (piece(b"%07d" % i) for i in range(1_000_000)), [UNIGRAM])})
def tokenizer_model(folder, pieces):
    os.remove(os.path.join(folder, "tokenizer.json"))
    os.remove(os.path.join(folder, "tokenizer_config.json"))
    write(folder, "tokenizer.model", itertools.chain([BPE], pieces()))


@case
def gguf_without_scores(folder):
    return gguf_model(folder, LLAMA + [
        gguf_key("tokenizer.ggml.model", STRING, gguf_string("llama")),
        gguf_array("tokenizer.ggml.tokens", STRING, 2, gguf_string("a") + gguf_string("b"))])


@case
def gguf_unigram_of_a_million(folder):
    """A million pieces and the unknown one, with scores, as a GGUF file has them."""
    count = 1_000_001
    tokens = gguf_string("<unk>") + b"".join(gguf_string(b"%07d" % i) for i in range(count - 1))
    return gguf_model(folder, LLAMA + [
        gguf_key("tokenizer.ggml.model", STRING, gguf_string("t5")),
        gguf_array("tokenizer.ggml.tokens", STRING, count, tokens),
        gguf_array("tokenizer.ggml.scores", FLOAT32, count, bytes(4 * count)),
        gguf_array("tokenizer.ggml.token_type", INT32, count,
                   struct.pack("<I", 2) + struct.pack("<I", 1) * (count - 1))])


@case
def an_added_token_without_end(folder):
    token = {"id": 2000, "content": "x" * 1_000_000, "special": True}
    change_json(folder, "tokenizer.json", lambda t: t["added_tokens"].append(token))


@cases({"nested": "(" * 100_000 + "a" + ")" * 100_000, "repeated": "(((a{9}){9}){9}){9999}",
        "long": "a|" * 40_000 + "b",
        "empty": "", "recursive": "(?R)", "bytes": "\\C", "code": "(?C1)a"})
def split_pattern(folder, pattern):
    def change(tokenizer):
        tokenizer["pre_tokenizer"] = {
            "type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]}
    change_json(folder, "tokenizer.json", change)


@cases({"deep": "{{ " + "(" * 100_000 + ")" * 100_000 + " }}", "long": "{{ 1 }}" * 200_000,
        "wide": "{{ 1 }}" * 140_000 + "{{",
        "open": "{% if x %}" * 10_000, "binary": "{{ '\\x00' "})
def chat_template(folder, source):
    change_json(folder, "tokenizer_config.json", lambda c: c.update(chat_template=source))
