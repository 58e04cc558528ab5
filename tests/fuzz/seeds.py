"""Writes the fuzzers' seeds, made of the goldens: a folder a target.

usage: seeds.py OUT [PROTOC]
"""
import base64
import json
import os
import shutil
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GOLDENS = os.path.join(ROOT, "tests/goldens")
sys.path.insert(0, os.path.join(ROOT, "tests/e2e"))
import hostile_files as files  # noqa: E402

TEXT = "Hello <|im_start|>  wörld's 123\r\n你\U0001f600 \u0301\u0327</s>"
MODELS = ("gemma", "gemma2", "gemma3", "granite", "llama3_rope", "llama_tied", "mistral_window",
          "mixtral", "olmo2", "phi3", "phi4_mini", "qwen2", "qwen2_yarn", "qwen3", "qwen3_moe",
          "smollm3")
POST_NORMS = {"post_attention_norm": [8], "post_ffw_norm": [8]}
HEAD_NORMS = {"attn_q_norm": [8], "attn_k_norm": [8]}
EXPERTS = {"ffn_gate_inp": [8, 2], "ffn_gate": None, "ffn_up": None, "ffn_down": None,
           "ffn_gate_exps": [8, 8, 2], "ffn_up_exps": [8, 8, 2], "ffn_down_exps": [8, 8, 2]}
# By name: architecture, settings and a layer's tensors beside those of the smallest llama.
GGUF_FAMILIES = {
    "gemma": ("gemma", {}, {}),
    "gemma2": ("gemma2", {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
                          "attention.sliding_window": 4}, POST_NORMS),
    "gemma3": ("gemma3", {"attention.sliding_window": 4}, POST_NORMS | HEAD_NORMS),
    "phi3": ("phi3", {"rope.dimension_count": 4, "rope.scaling.original_context_length": 16,
                      "rope.scaling.attn_factor": 1.2},
             {"attn_qkv": [8, 24], "attn_q": None, "attn_k": None, "attn_v": None,
              "ffn_gate": None, "ffn_up": [8, 16], "rope_factors": [2]}),
    "olmo2": ("olmo2", {}, POST_NORMS | HEAD_NORMS | {"attn_norm": None, "ffn_norm": None}),
    "granite": ("granite", {"embedding_scale": 12.0, "residual_scale": 0.2,
                            "attention.scale": 0.1, "logit_scale": 8.0}, {}),
    "smollm3": ("smollm3", {}, {}),
    "mixtral": ("llama", {"expert_count": 2, "expert_used_count": 1}, EXPERTS),
    "qwen3moe": ("qwen3moe", {"expert_count": 2, "expert_used_count": 1,
                              "expert_feed_forward_length": 8}, EXPERTS | HEAD_NORMS),
}
# One layer 256 wide and narrow otherwise, whose tensors are of all types of blocks there are: GGUF's
# numbers of them.
BLOCKS = {"attn_q": 12, "attn_k": 13, "attn_v": 14, "ffn_gate": 8, "ffn_up": 2, "token_embd": 12}
OLD_BLOCKS = {"attn_q": 3, "attn_k": 6, "attn_v": 7, "ffn_gate": 30, "ffn_up": 1, "token_embd": 8}
SENTENCEPIECE = ("dummy_prefix", "user_defined", "unknown", "charsmap", "unigram", "unigram_bytes")
TOKENIZERS = ("digits_style", "llama3_style", "qwen2_style", "llama2_style", "gemma_style",
              "unigram_style")

# GenerateRequests as text.
REQUESTS = {
    "prompt": "prompt: 'Hello' max_new_tokens: 5 sampling { temperature: 0.5 top_k: 3 top_p: 0.9 }",
    "ids": "prompt_token_ids { ids: 5 ids: 6 } n: 2 stop { strings: 'x' token_ids: 3 }",
    "chat": "chat { messages { role: 'user' content: 'Hi <|im_start|>' extra_json: '{\"a\": [1]}' } "
            "template_kwargs_json: '{\"b\": 1.5}' tools_json: '[{}]' documents_json: '[]' }",
    "all": "prompt: 'x' request_id: 'r' logprobs { top: 2 prompt: true } "
           "sampling { min_p: 0.1 seed: 7 repetition_penalty: 1.1 min_new_tokens: 1 }",
}


def small(tokenizer):
    """With some hundred entries and a few merges: quick to parse. Ids are given anew, so that the
    added tokens follow the vocabulary."""
    model = tokenizer["model"]
    if model["type"] == "Unigram":
        model["vocab"] = model["vocab"][:300]
        return tokenizer
    merges = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]][:30]
    needed = {entry for left, right in merges for entry in (left, right, left + right)}
    ids = {}
    for entry, number in model["vocab"].items():
        if number < 300 or entry in needed:
            ids[entry] = len(ids)
    model["vocab"], model["merges"] = dict(ids), merges
    for token in tokenizer["added_tokens"]:
        token["id"] = ids.setdefault(token["content"], len(ids))
    processor = tokenizer["post_processor"] or {}
    for part in (processor, *processor.get("processors", [])):
        for name, token in part.get("special_tokens", {}).items():
            token["ids"] = [ids[name]]
    return tokenizer


def small_pieces(model):
    """A tokenizer.model without most of its pieces: fields of less than 128 bytes each."""
    out, pieces, at = b"", 0, 0
    while at < len(model) and model[at] == 0x0A:  # a piece; the other fields are behind them
        end = at + 2 + model[at + 1]
        # The first are unknown, control and user-defined; then come bytes, made pieces, characters.
        if pieces < 24 or b"\x18\x06" not in model[at:end] and pieces % 4 == 0:
            out += model[at:end]
        pieces, at = pieces + 1, end
    return out + model[at:]


def put(folder, name, data):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as out:
        out.write(data if isinstance(data, bytes) else data.encode())


def read(*path):
    with open(os.path.join(GOLDENS, *path), "rb") as file:
        return file.read()


def gguf_seeds(out):
    tokens = b"".join(files.gguf_string(t) for t in ("a", "b", "ab", "<s>"))
    tokenizer = files.GPT2 + [
        files.gguf_array("tokenizer.ggml.tokens", files.STRING, 4, tokens),
        files.gguf_array("tokenizer.ggml.token_type", 5, 4, struct.pack("<4i", 1, 1, 1, 3)),
        files.gguf_array("tokenizer.ggml.merges", files.STRING, 1, files.gguf_string("a b")),
        files.gguf_key("tokenizer.ggml.bos_token_id", files.UINT32, struct.pack("<I", 3)),
        files.gguf_key("tokenizer.chat_template", files.STRING, files.gguf_string("{{ 1 }}")),
    ]
    os.makedirs(out)
    for name, keys in {"model": files.LLAMA, "tokenizer": files.LLAMA + tokenizer}.items():
        os.rename(files.gguf_model(out, keys), os.path.join(out, name))
    for name, (architecture, settings, tensors) in GGUF_FAMILIES.items():
        keys = files.gguf_architecture(architecture, **settings)
        changes = {f"blk.0.{tensor}.weight": shape for tensor, shape in tensors.items()}
        if "rope_factors" in tensors:
            del changes["blk.0.rope_factors.weight"]
            for length in ("short", "long"):
                changes[f"rope_factors_{length}.weight"] = tensors["rope_factors"]
        os.rename(files.gguf_model(out, keys, changes), os.path.join(out, name))
    for name, types in {"k_quants": BLOCKS, "old_quants": OLD_BLOCKS}.items():
        keys = files.gguf_architecture("llama", embedding_length=256,
                                       **{"attention.key_length": 8, "attention.value_length": 8})
        shapes = {"token_embd.weight": [256, 4], "output_norm.weight": [256]}
        shapes |= {f"blk.0.{n}.weight": [256] for n in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.0.{n}.weight": [256, 8] for n in ("attn_q", "attn_k", "attn_v",
                                                            "ffn_gate", "ffn_up")}
        shapes |= {f"blk.0.{n}.weight": [8, 256] for n in ("attn_output", "ffn_down")}
        path = files.gguf_model(out, keys, shapes, types)
        os.rename(path, os.path.join(out, name))
    # Three dimensions a tensor: experts in blocks, rows of 256 values and of 32.
    for name, (hidden, inner, types) in {
            "experts_k_quants": (256, 8, {"ffn_gate_exps": 12, "ffn_up_exps": 14}),
            "experts_old_quants": (32, 32, {"ffn_gate_exps": 8, "ffn_up_exps": 7,
                                            "ffn_down_exps": 2})}.items():
        keys = files.gguf_architecture(
            "qwen3moe", embedding_length=hidden, expert_count=2, expert_used_count=1,
            expert_feed_forward_length=inner,
            **{"attention.key_length": 8, "attention.value_length": 8})
        layer = {"attn_norm": [hidden], "ffn_norm": [hidden], "attn_q": [hidden, 8],
                 "attn_k": [hidden, 8], "attn_v": [hidden, 8], "attn_output": [8, hidden],
                 **HEAD_NORMS, "ffn_gate": None, "ffn_up": None, "ffn_down": None,
                 "ffn_gate_inp": [hidden, 2], "ffn_gate_exps": [hidden, inner, 2],
                 "ffn_up_exps": [hidden, inner, 2], "ffn_down_exps": [inner, hidden, 2]}
        shapes = {f"blk.0.{tensor}.weight": shape for tensor, shape in layer.items()}
        shapes |= {"token_embd.weight": [hidden, 4], "output_norm.weight": [hidden]}
        os.rename(files.gguf_model(out, keys, shapes, types), os.path.join(out, name))
    for name in SENTENCEPIECE:
        path = files.gguf_model(out, files.LLAMA + gguf_pieces(name))
        os.rename(path, os.path.join(out, f"pieces_{name}"))


def gguf_pieces(name):
    """A SentencePiece vocabulary's keys, as llama.cpp writes them; of the pieces that are made, few."""
    pieces = json.loads(read("tokenizers/sentencepiece", name, "pieces.json"))
    kept = [i for i, kind in enumerate(pieces["types"]) if kind != 1 and kind != 6 or i % 8 == 0]
    count = len(kept)
    tokens = b"".join(files.gguf_string(pieces["tokens"][i]) for i in kept)
    keys = [
        files.gguf_key("tokenizer.ggml.model", files.STRING,
                       files.gguf_string("t5" if name.startswith("unigram") else "llama")),
        files.gguf_array("tokenizer.ggml.tokens", files.STRING, count, tokens),
        files.gguf_array("tokenizer.ggml.scores", files.FLOAT32, count,
                         struct.pack(f"<{count}f", *(pieces["scores"][i] for i in kept))),
        files.gguf_array("tokenizer.ggml.token_type", 5, count,
                         struct.pack(f"<{count}i", *(pieces["types"][i] for i in kept)))]
    keys += [files.gguf_key(f"tokenizer.ggml.{key}", files.BOOL, bytes([pieces[key]]))
             for key in ("add_space_prefix", "remove_extra_whitespaces")]
    if "charsmap" in pieces:
        rules = base64.b64decode(pieces["charsmap"])
        keys.append(files.gguf_array("tokenizer.ggml.precompiled_charsmap", files.UINT8, len(rules),
                                     rules))
    return keys


def main():
    out, protoc = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "protoc"
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    gguf_seeds(os.path.join(out, "gguf"))
    for model in MODELS:
        for name in ("config.json", "generation_config.json"):
            put(os.path.join(out, "config"), f"{model}_{name}", read(model, name))
        whole = read(model, "model.safetensors")
        size, = struct.unpack("<Q", whole[:8])
        header = dict(list(json.loads(whole[8:8 + size]).items())[:3])
        end = 0  # of the first tensors, moved together
        for entry in header.values():
            if "data_offsets" in entry:
                begin, length = end, entry["data_offsets"][1] - entry["data_offsets"][0]
                entry["shape"], length = [4], 4 * {"F32": 4, "BF16": 2, "F16": 2}[entry["dtype"]]
                end += length
                entry["data_offsets"] = [begin, end]
        put(os.path.join(out, "safetensors"), model, files.safetensors(header, b"\0" * end))
    for style in TOKENIZERS:
        text = json.dumps(small(json.loads(read("tokenizers", style, "tokenizer.json"))))
        put(os.path.join(out, "tokenizer_json"), style, text + "\0" + TEXT)
    for name in SENTENCEPIECE:
        whole = read("tokenizers/sentencepiece", name, "tokenizer.model")
        put(os.path.join(out, "tokenizer_json"), name + "_model",
            small_pieces(whole) + b"\0" + TEXT.encode())
    conversation = json.dumps([{"role": "system", "content": "You are."},
                               {"role": "user", "content": TEXT},
                               {"role": "assistant", "content": "Yes."},
                               {"role": "user", "content": "Go on."}])
    folder = os.path.join(GOLDENS, "chat/templates")
    for name in sorted(os.listdir(folder)):
        put(os.path.join(out, "template"), name,
            read("chat/templates", name) + b"\0" + conversation.encode())
    with open(os.path.join(GOLDENS, "chat/expressions.txt"), encoding="utf-8") as lines:
        for i, line in enumerate(lines):
            put(os.path.join(out, "template"), f"expression_{i}", line.strip())
    for name, text in REQUESTS.items():
        data = subprocess.run(
            [protoc, f"-I{ROOT}/proto", "--encode=sirocco.v1.GenerateRequest",
             "sirocco/v1/inference.proto"], input=text.encode(), check=True, stdout=subprocess.PIPE)
        put(os.path.join(out, "request"), name, data.stdout)


main()
