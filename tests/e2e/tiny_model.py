"""Writes a small random Llama with a tokenizer of tests/goldens: fast, and its text is a stress."""
import array
import json
import os
import random
import shutil
import struct

VOCABULARY = 2000  # of digits_style
END_ID = 2


def write(folder, tokenizer_folder, hidden=64, layers=2, heads=4, kv_heads=2, feed_forward=128,
          max_length=8192):
    """Makes a Hugging Face directory; deterministic."""
    generator = random.Random(20240607)
    head_dim = hidden // heads

    def normal(*shape):
        count = 1
        for size in shape:
            count *= size
        # Logits of a few units: neither uniform nor a certainty.
        deviation = 1.5 / hidden**0.5
        return shape, array.array("f", (generator.gauss(0, deviation) for _ in range(count)))

    def ones(size):
        return (size,), array.array("f", [1.0] * size)

    tensors = {"model.embed_tokens.weight": normal(VOCABULARY, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        tensors[prefix + "input_layernorm.weight"] = ones(hidden)
        tensors[prefix + "post_attention_layernorm.weight"] = ones(hidden)
        for name, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            tensors[f"{prefix}self_attn.{name}_proj.weight"] = normal(rows * head_dim, hidden)
        tensors[prefix + "self_attn.o_proj.weight"] = normal(hidden, hidden)
        tensors[prefix + "mlp.gate_proj.weight"] = normal(feed_forward, hidden)
        tensors[prefix + "mlp.up_proj.weight"] = normal(feed_forward, hidden)
        tensors[prefix + "mlp.down_proj.weight"] = normal(hidden, feed_forward)
    tensors["model.norm.weight"] = ones(hidden)
    tensors["lm_head.weight"] = normal(VOCABULARY, hidden)

    os.makedirs(folder)
    header, offset = {}, 0
    for name, (shape, values) in tensors.items():
        size = 4 * len(values)
        header[name] = {"dtype": "F32", "shape": list(shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, values in tensors.values():
            out.write(values.tobytes())

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "hidden_size": hidden, "head_dim": head_dim,
        "intermediate_size": feed_forward, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": max_length, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "vocab_size": VOCABULARY, "torch_dtype": "float32",
        "bos_token_id": 1, "eos_token_id": END_ID,
    }
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(os.path.join(tokenizer_folder, name), os.path.join(folder, name))
    return folder
