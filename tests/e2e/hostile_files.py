"""Model files that nobody should trust: how each is spoilt.

A case is a function of a folder that holds a copy of a model (tiny_model.py); what it returns is
the model's path where that is not the folder.
"""
import json
import math
import os
import struct

UINT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 0, 4, 5, 6, 7, 8, 9, 10
F32, Q4_0 = 0, 2
HUGE = 1 << 61

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def cases(values):
    """A case for each value, which is its second argument."""
    def add(function):
        for name, value in values.items():
            CASES[f"{function.__name__}[{name}]"] = (
                lambda folder, value=value: function(folder, value))
        return function
    return add


# ---- Reading and writing what a folder holds.

def read(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def write(folder, name, data):
    path = os.path.join(folder, name)
    if os.path.lexists(path):
        os.remove(path)
    with open(path, "wb") as file:
        for piece in [data] if isinstance(data, (bytes, str)) else data:
            file.write(piece.encode() if isinstance(piece, str) else piece)
    return path


def change_json(folder, name, change):
    value = json.loads(read(folder, name))
    change(value)
    write(folder, name, json.dumps(value))


def safetensors(header, data=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def change_header(folder, change):
    """Rewrites the header of model.safetensors; the data stays."""
    whole = read(folder, "model.safetensors")
    size, = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8:8 + size])
    change(header)
    write(folder, "model.safetensors", safetensors(header, whole[8 + size:]))


def gguf_string(text):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text)) + text


def gguf_key(name, kind, value):
    return gguf_string(name) + struct.pack("<I", kind) + value


def gguf_array(name, kind, count, elements):
    return gguf_key(name, ARRAY, struct.pack("<IQ", kind, count) + elements)


def gguf_tensor(name, shape, kind, offset):
    """`shape` innermost first, as the file has it."""
    return (gguf_string(name) + struct.pack("<I", len(shape)) +
            b"".join(struct.pack("<Q", d) for d in shape) + struct.pack("<IQ", kind, offset))


def gguf(folder, keys=(), tensors=(), data=b"", key_count=None, tensor_count=None, version=3):
    head = b"GGUF" + struct.pack("<IQQ", version,
                                 len(tensors) if tensor_count is None else tensor_count,
                                 len(keys) if key_count is None else key_count)
    head += b"".join(keys) + b"".join(tensors)
    return write(folder, "model.gguf", [head, b"\0" * (-len(head) % 32), data])


def gguf_architecture(name, **more):
    """Settings of the smallest model; floats of `more` are written as such."""
    sizes = {"block_count": 1, "context_length": 64, "embedding_length": 8,
             "feed_forward_length": 8, "attention.head_count": 1,
             "attention.layer_norm_rms_epsilon": 1e-5}
    return [gguf_key("general.architecture", STRING, gguf_string(name))] + [
        gguf_key(f"{name}.{key}", FLOAT32, struct.pack("<f", value)) if isinstance(value, float)
        else gguf_key(f"{name}.{key}", UINT32, struct.pack("<I", value))
        for key, value in (sizes | more).items()]


LLAMA = gguf_architecture("llama")
GPT2 = [
    gguf_key("tokenizer.ggml.model", STRING, gguf_string("gpt2")),
    gguf_key("tokenizer.ggml.pre", STRING, gguf_string("gpt-2")),
]


# Values in a block, and its bytes, by GGUF's number of a type.
BLOCK_SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
               12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2)}


def gguf_model(folder, keys, changes=None, types=None):
    """With every tensor of LLAMA's model, of four ids, and with `changes`: other shapes, or None.
    `types`, by the last part of a name but "weight": where they are not F32."""
    shapes = {"token_embd.weight": [8, 4], "output_norm.weight": [8]}
    shapes.update({f"blk.0.{name}.weight": [8] for name in ("attn_norm", "ffn_norm")})
    shapes.update({f"blk.0.{name}.weight": [8, 8] for name in (
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")})
    shapes.update(changes or {})
    tensors, offset = [], 0
    for name, extents in shapes.items():
        if extents is None:
            continue
        kind = (types or {}).get(name.split(".")[-2], F32)
        values, size = BLOCK_SIZES[kind]
        tensors.append(gguf_tensor(name, extents, kind, offset))
        offset += (math.prod(extents) // values * size + 31) // 32 * 32
    return gguf(folder, keys, tensors, b"\0" * offset)


# ---- Cut off and spoilt.

@cases({f"{name},{share}": (name, share)
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
        for share in (0, 0.5, 0.99)})
def truncated(folder, what):
    name, share = what
    whole = read(folder, name)
    write(folder, name, whole[:int(len(whole) * share)])


@case
def gguf_cut_in_the_header(folder):
    path = gguf(folder, LLAMA, [gguf_tensor("token_embd.weight", [8, 4], F32, 0)], b"\0" * 128)
    whole = read(folder, "model.gguf")
    write(folder, "model.gguf", whole[:60])
    return path


@case
def gguf_cut_in_the_data(folder):
    return gguf(folder, LLAMA, [gguf_tensor("token_embd.weight", [8, 4], F32, 0)], b"\0" * 127)


@cases({"config.json": "config.json", "tokenizer.json": "tokenizer.json",
        "generation_config.json": "generation_config.json"})
def not_utf8(folder, name):
    write(folder, name, b'{"a\xff": 1}')


@cases({f"{name},{at}": (name, at) for name, at in (
    ("config.json", 0), ("config.json", -1), ("model.safetensors", 0), ("model.safetensors", 7),
    ("model.safetensors", 8), ("tokenizer.json", 0), ("tokenizer_config.json", -1))})
def bit_flipped(folder, what):
    name, at = what
    whole = bytearray(read(folder, name))
    whole[at] ^= 0x10
    write(folder, name, bytes(whole))


# ---- Claims of sizes.

@cases({"2^61": HUGE, "2^64-1": (1 << 64) - 1, "2^32": 1 << 32, "past_the_end": 1 << 20})
def header_size(folder, size):
    write(folder, "model.safetensors", safetensors({}, size=size))


@cases({"keys": {"key_count": HUGE}, "tensors": {"tensor_count": HUGE},
        "all": {"key_count": (1 << 64) - 1, "tensor_count": (1 << 64) - 1},
        "many": {"key_count": 65536}})
def gguf_counts(folder, counts):
    return gguf(folder, LLAMA, **counts)


@cases({"strings": STRING, "bytes": UINT8, "uint64": UINT64})
def gguf_array_size(folder, kind):
    return gguf(folder, LLAMA + [gguf_array("list", kind, HUGE, b"\0" * 64)])


@case
def gguf_string_size(folder):
    return gguf(folder, LLAMA + [gguf_key("text", STRING, struct.pack("<Q", HUGE) + b"x" * 64)])


@cases({"product": [1 << 40, 1 << 40], "negative": [(1 << 64) - 8, 4], "zero": [0, 4],
        "bytes": [1 << 62, 4], "no_blocks": [8, 4]})
def gguf_shape(folder, shape):
    kind = Q4_0 if shape == [8, 4] else F32
    return gguf(folder, LLAMA, [gguf_tensor("token_embd.weight", shape, kind, 0)], b"\0" * 128)


@cases({"torn": ([8, 32], 144), "cut_off": ([256, 2], 287), "narrow": ([255, 1], 144)})
def gguf_large_blocks(folder, what):
    """Q4_K: 256 values in 144 bytes."""
    shape, size = what
    return gguf(folder, LLAMA, [gguf_tensor("token_embd.weight", shape, 12, 0)], b"\0" * size)


@cases({"cut_off": ([256, 8, 2], 2303), "narrow": ([255, 8, 2], 2304), "zero": ([256, 8, 0], 0),
        "product": ([256, 1 << 40, 1 << 40], 2304), "deep": ([256, 8, 2, 1, 1], 2304)})
def gguf_expert_blocks(folder, what):
    """Q4_K: 16 rows of 144 bytes."""
    shape, size = what
    keys = gguf_architecture("qwen3moe", expert_count=2, expert_used_count=1, embedding_length=256)
    return gguf(folder, keys, [gguf_tensor("blk.0.ffn_gate_exps.weight", shape, 12, 0)],
                b"\0" * size)


@cases({
    "experts": ("qwen3moe", {"block_count": 1024, "expert_count": 1024, "expert_used_count": 1}, {}),
    "used": ("qwen3moe", {"expert_count": 2, "expert_used_count": 3}, {}),
    "one_matrix": ("llama", {"expert_count": 2, "expert_used_count": 1},
                   {"blk.0.ffn_gate_exps.weight": [8, 8]}),
    "three_matrices": ("llama", {"expert_count": 2, "expert_used_count": 1},
                       {"blk.0.ffn_gate_exps.weight": [8, 8, 3]}),
    "fused": ("phi3", {}, {"blk.0.attn_qkv.weight": [8, 23]}),
    "factors": ("phi3", {}, {"rope_factors_long.weight": [3], "rope_factors_short.weight": [3]}),
    "turned": ("phi3", {"rope.dimension_count": 1 << 30}, {}),
    "window": ("gemma2", {"attention.sliding_window": 1 << 31}, {}),
    "residual": ("granite", {"residual_scale": float("nan")}, {}),
    "soft_cap": ("gemma2", {"final_logit_softcapping": float("inf")}, {}),
})
def gguf_family(folder, what):
    name, settings, tensors = what
    return gguf_model(folder, gguf_architecture(name, **settings), tensors)


@cases({"past_the_end": 1 << 20, "wraps": (1 << 64) - 32, "not_aligned": 4})
def gguf_offset(folder, offset):
    return gguf(folder, LLAMA, [gguf_tensor("token_embd.weight", [8, 4], F32, offset)], b"\0" * 256)


@case
def gguf_overlap(folder):
    return gguf(folder, LLAMA, [gguf_tensor(name, [8, 4], F32, 0)
                                for name in ("token_embd.weight", "output.weight")], b"\0" * 256)


@cases({"past_the_end": [0, 1 << 40], "backwards": [64, 0], "negative": [-64, 0],
        "float": [0.0, 64.0], "beyond_int64": [0, 1 << 63], "three": [0, 1, 2], "text": "0,64"})
def data_offsets(folder, offsets):
    change_header(folder, lambda h: h["model.norm.weight"].update(data_offsets=offsets))


@case
def tensors_overlap(folder):
    def change(header):
        first = header["model.layers.0.input_layernorm.weight"]["data_offsets"]
        header["model.norm.weight"]["data_offsets"] = first
    change_header(folder, change)


@cases({"wraps": [1 << 32, 1 << 32], "negative": [-64], "zero": [0], "text": "64", "missing": None,
        "deep": [[[64]]], "nine": [1] * 9, "matrix": [8, 8]})
def shape(folder, value):
    change_header(folder, lambda h: h["model.norm.weight"].update(shape=value))


@cases({"unknown": "F4", "number": 32, "quantised": "F8_E4M3"})
def dtype(folder, value):
    change_header(folder, lambda h: h["model.norm.weight"].update(dtype=value))


@case
def tensor_missing(folder):
    def change(header):
        header["model.norm.other"] = header.pop("model.norm.weight")
    change_header(folder, change)


# ---- JSON that is deep, wide, or says things twice.

@cases({name: name for name in ("config.json", "generation_config.json", "tokenizer.json",
                                "tokenizer_config.json", "model.safetensors.index.json")})
def deep(folder, name):
    if name.endswith("index.json"):
        os.remove(os.path.join(folder, "model.safetensors"))
    write(folder, name, '{"a":' + "[" * 2_000_000 + "]" * 2_000_000 + "}")


@case
def deep_header(folder):
    write(folder, "model.safetensors", safetensors(b'{"a":' + b"[" * 2_000_000 + b"}"))


@cases({name: name for name in ("config.json", "tokenizer.json", "tokenizer_config.json",
                                "model.safetensors.index.json")})
def wide(folder, name):
    """Each value of three bytes would take tens of bytes in a tree."""
    if name.endswith("index.json"):
        os.remove(os.path.join(folder, "model.safetensors"))
    write(folder, name, ['{"a":[', "[]," * 7_000_000, "0]}"])


@case
def wide_header(folder):
    text = b'{"a":[' + b"[]," * 3_000_000 + b"0]}"
    write(folder, "model.safetensors", safetensors(text))


@case
def header_of_many_tensors(folder):
    entries = ",".join(f'"{i:x}":{{}}' for i in range(900_000))
    write(folder, "model.safetensors", safetensors(("{" + entries + "}").encode()))


@case
def key_twice(folder):
    write(folder, "config.json", '{"model_type": "llama", "model_type": "llama"}')


# ---- Settings.

@cases({name: value for name, value in {
    "vocab_0": {"vocab_size": 0}, "vocab_negative": {"vocab_size": -1},
    "vocab_huge": {"vocab_size": 1 << 62}, "vocab_float": {"vocab_size": 2000.0},
    "hidden_0": {"hidden_size": 0}, "hidden_huge": {"hidden_size": (1 << 31) - 1},
    "layers_negative": {"num_hidden_layers": -2}, "layers_huge": {"num_hidden_layers": 1 << 30},
    "heads_0": {"num_attention_heads": 0}, "heads_odd": {"num_attention_heads": 3},
    "kv_heads_more": {"num_key_value_heads": 8}, "head_dim_negative": {"head_dim": -16},
    "head_dim_odd": {"head_dim": 15}, "positions_0": {"max_position_embeddings": 0},
    "epsilon_negative": {"rms_norm_eps": -1e-6}, "epsilon_text": {"rms_norm_eps": "NaN"},
    "theta_0": {"rope_theta": 0}, "theta_negative": {"rope_theta": -10000.0},
    "rope_factor_negative": {"rope_scaling": {"rope_type": "linear", "factor": -1.0}},
    "eos_negative": {"eos_token_id": -1}, "eos_beyond": {"eos_token_id": 2000},
    "eos_list_of_text": {"eos_token_id": ["2"]}, "type_number": {"model_type": 5},
    "architectures_cycle": {"architectures": [{"architectures": []}]},
}.items()})
def setting(folder, values):
    change_json(folder, "config.json", lambda config: config.update(values))


@cases({"NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity", "1e999": "1e999",
        "-0": "-0.0", "1e-999": "1e-999"})
def epsilon(folder, text):
    config = json.loads(read(folder, "config.json"))
    config["rms_norm_eps"] = "HERE"
    write(folder, "config.json", json.dumps(config).replace('"HERE"', text))


@cases({"nan": float("nan"), "inf": float("inf"), "negative": -1.0})
def gguf_epsilon(folder, value):
    keys = LLAMA[:-1] + [
        gguf_key("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", value))]
    return gguf(folder, keys, [gguf_tensor("token_embd.weight", [8, 4], F32, 0)], b"\0" * 128)


@cases({"nan": "nan", "temperature": -1, "huge": 1e300, "text": "1"})
def generation(folder, value):
    text = "NaN" if value == "nan" else json.dumps(value)
    write(folder, "generation_config.json", '{"temperature": ' + text + "}")


# ---- Paths.

def index_names(folder, name):
    os.rename(os.path.join(folder, "model.safetensors"), os.path.join(folder, "other.safetensors"))
    write(folder, "model.safetensors.index.json",
          json.dumps({"weight_map": {"model.norm.weight": name}}))


@cases({"parent": "../model.safetensors", "root": "/etc/passwd", "dots": "..", "empty": "",
        "nul": "a\0b", "folder": "sub/a.safetensors", "number": 5})
def path_in_the_index(folder, name):
    index_names(folder, name)


@cases({name: name for name in ("config.json", "model.safetensors", "tokenizer.json",
                                "generation_config.json", "tokenizer_config.json",
                                "special_tokens_map.json", "chat_template.jinja")})
def link_loop(folder, name):
    path = os.path.join(folder, name)
    if os.path.exists(path):
        os.remove(path)
    os.symlink(name, path)


@case
def link_loop_of_the_folder(folder):
    path = os.path.join(folder, "loop")
    os.symlink("loop", path)
    return path


@case
def link_loop_of_a_shard(folder):
    index_names(folder, "shard.safetensors")
    os.symlink("shard.safetensors", os.path.join(folder, "shard.safetensors"))


@cases({name: name for name in ("config.json", "model.safetensors", "tokenizer.json",
                                "generation_config.json", "tokenizer_config.json",
                                "special_tokens_map.json", "chat_template.jinja")})
def link_to_nothing(folder, name):
    path = os.path.join(folder, name)
    if os.path.exists(path):
        os.remove(path)
    os.symlink("nothing", path)


@cases({name: name for name in ("config.json", "model.safetensors", "tokenizer.json")})
def fifo(folder, name):
    os.remove(os.path.join(folder, name))
    os.mkfifo(os.path.join(folder, name))


@cases({name: name for name in ("config.json", "model.safetensors", "tokenizer.json",
                                "generation_config.json")})
def is_a_folder(folder, name):
    if os.path.exists(os.path.join(folder, name)):
        os.remove(os.path.join(folder, name))
    os.mkdir(os.path.join(folder, name))


@cases({"zero": "/dev/zero", "random": "/dev/urandom", "memory": "/proc/self/mem"})
def is_a_device(folder, target):
    os.remove(os.path.join(folder, "tokenizer.json"))
    os.symlink(target, os.path.join(folder, "tokenizer.json"))
