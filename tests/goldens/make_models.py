"""Makes goldens of families: tiny random models with reference answers (README.md).

Needs PyPI's torch, transformers and safetensors; the files here were made with transformers 5.24.

usage: make_models.py FOLDER [NAME ...]     writes FOLDER/NAME for each (default: all)
"""

import math
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

GENERATED = 32
PROMPT_LENGTHS = (5, 33, 78)

COMMON = dict(
    vocab_size=384, hidden_size=64, intermediate_size=160, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    bos_token_id=1, eos_token_id=2, pad_token_id=0)


def rope(kind="default", **values):
    return dict(rope_type=kind, **values)


def spread(count, first, last):
    """So many factors that grow evenly."""
    return [round(first + (last - first) * i / (count - 1), 3) for i in range(count)]


# By name: the configuration's class, what it is given, and lengths of the prompts where the usual
# ones will not do.
MODELS = {
    "gemma": ("GemmaConfig", dict(head_dim=32, num_key_value_heads=1), None),
    "granite": ("GraniteConfig", dict(
        embedding_multiplier=6.0, residual_multiplier=0.4, attention_multiplier=0.2,
        logits_scaling=1.6, attention_bias=True, tie_word_embeddings=True), None),
    "smollm3": ("SmolLM3Config", dict(
        rope_parameters=rope(rope_theta=50000.0)), None),
    "olmo2": ("Olmo2Config", dict(num_hidden_layers=3), None),
    # Of a head of 16 elements 12 turn. All prompts are longer than the original context, so that
    # transformers takes the long factors for all of them.
    "phi4_mini": ("Phi3Config", dict(
        num_hidden_layers=3, tie_word_embeddings=True, original_max_position_embeddings=16,
        rope_parameters=rope("longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                             short_factor=spread(6, 1, 1.5), long_factor=spread(6, 1.1, 9),
                             original_max_position_embeddings=16, attention_factor=1.19)),
        (18, 33, 78)),
    # The same within the original context: the short factors.
    "phi3_short": ("Phi3Config", dict(
        num_hidden_layers=2, max_position_embeddings=1024, original_max_position_embeddings=512,
        rope_parameters=rope("longrope", rope_theta=10000.0, short_factor=spread(8, 1, 2.5),
                             long_factor=spread(8, 2, 20),
                             original_max_position_embeddings=512)), None),
    "qwen2_yarn": ("Qwen2Config", dict(
        num_hidden_layers=2, rope_parameters=rope(
            "yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)), None),
}


# With its usual seed one position's attention hangs on the last bits of bfloat16 keys.
OTHER_SEEDS = {"phi4_mini": 1}


def fill(model, scaled_embedding):
    """Weights at which every part counts and best ids are clear of the second."""
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            # Gemma multiplies by 1 + w.
            mean = 0.0 if scaled_embedding else 1.0
            if scaled_embedding and name == "model.norm.weight":
                mean = 3.0
            parameter.normal_(mean, 0.1)
        elif name.endswith(".bias"):
            parameter.normal_(0, 0.1)
        elif "embed_tokens" in name:
            tied = model.config.tie_word_embeddings
            parameter.normal_(0, 0.05 if scaled_embedding else 0.2 if tied else 1.0)
        else:
            parameter.normal_(0, 1.6 / math.sqrt(parameter.shape[-1]))


@torch.no_grad()
def make(folder, name):
    kind, values, lengths = MODELS[name]
    torch.manual_seed(sum(name.encode()) + OTHER_SEEDS.get(name, 0))
    config = getattr(transformers, kind)(**{**COMMON, **values})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    fill(model, kind.startswith("Gemma"))
    model.to(torch.bfloat16).save_pretrained(folder / name)
    # Float32 arithmetic on the stored weights. Read anew: the buffers went to bfloat16 too.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / name, dtype=torch.float32, attn_implementation="eager").eval()
    answers = {}
    for i, length in enumerate(lengths or PROMPT_LENGTHS):
        prompt = torch.randint(3, config.vocab_size, (length,))
        ids = prompt
        for step in range(GENERATED):
            logits = model(ids[None], use_cache=False).logits[0]
            if step == 0:
                answers[f"logits_{i}"] = logits.clone()
            best = logits[-1].topk(2).values
            answers.setdefault(f"margin_{i}", []).append((best[0] - best[1]).item())
            ids = torch.cat([ids, logits[-1].argmax()[None]])
        answers[f"prompt_{i}"] = prompt
        answers[f"greedy_{i}"] = ids[length:].clone()
        answers[f"margin_{i}"] = torch.tensor(answers[f"margin_{i}"])
    save_file(answers, folder / name / "expected.safetensors")
    spread_of_logits = answers["logits_2"].std().item()
    print(name, "logits", round(spread_of_logits, 2), "median margin",
          round(answers["margin_2"].median().item(), 2))


def main():
    folder = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        make(folder, name)


if __name__ == "__main__":
    main()
