"""A small charsmap in SentencePiece's format, of rules like those of its nmt_nfkc, which is too large.

    pip install sentencepiece==0.2.3 protobuf
"""
import io
import pathlib
import tempfile
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

GONE = [*range(1, 9), 0x0B, *range(0x0E, 0x20), 0x7F, 0x200B]
SPACES = [0x09, 0x0A, 0x0C, 0x0D, 0xA0, *range(0x2000, 0x200B), 0x2028, 0x2581, 0x3000, 0xFEFF]
COMPATIBLE = [*range(0xA8, 0xBF), *range(0x132, 0x134), *range(0x958, 0x960), *range(0x9DC, 0x9DE), 0xE33,
              *range(0x2100, 0x2140), *range(0x2460, 0x2480), *range(0x3300, 0x3310), *range(0xFB00, 0xFB07),
              0xFDFA, *range(0xFF01, 0xFF9E), 0x1D400, 0x1F100]
COMPOSED = [*range(0xC0, 0x180), 0x1E69, 0x1EA5, 0x3042, *range(0x304C, 0x3060), 0xAC00, 0xD55C, 0xAE00]


def rules():
    """Pairs of texts; where one stands twice, the first counts."""
    for c in GONE:
        yield chr(c), ""
    for c in SPACES:
        yield chr(c), " "
    yield "\r\n", " "
    for c in COMPATIBLE:
        yield chr(c), unicodedata.normalize("NFKC", chr(c))
    for c in COMPOSED:
        yield unicodedata.normalize("NFD", chr(c)), chr(c)
    for c in range(0xFF66, 0xFF9E):
        for mark in "\uff9e\uff9f":
            yield chr(c) + mark, unicodedata.normalize("NFKC", chr(c) + mark)


def write_rules(path):
    written = dict(reversed([(a, b) for a, b in rules() if a != b]))
    with open(path, "w", encoding="ascii") as out:
        for source, target in sorted(written.items()):
            out.write("\t".join(" ".join(f"{ord(c):X}" for c in text) for text in (source, target)) + "\n")


def train(lines, **settings):
    """A model's bytes; normalization="charsmap" stands for the rules here."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rules.tsv"
        if settings["normalization_rule_name"] == "charsmap":
            write_rules(path)
            settings = {**settings, "normalization_rule_tsv": str(path),
                        "normalization_rule_name": "user_defined"}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, num_threads=1, minloglevel=2, **settings)
    return model.getvalue()


def of_model(model):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto.normalizer_spec.precompiled_charsmap


def charsmap():
    return of_model(train(["a b c d e f"] * 20, model_type="char", vocab_size=10,
                          hard_vocab_limit=False, normalization_rule_name="charsmap"))
