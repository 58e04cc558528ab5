"""Makes beams/NAME.json for goldens: what transformers' beam search answers (README.md).

Needs PyPI's torch, transformers and safetensors; the files here were made with transformers 5.24.
A case is kept only if noise as large as the tolerance of log-probabilities changes no answer, so
that whoever is within the tolerance must give the same ones.

usage: make_beams.py FOLDER [NAME ...]     reads FOLDER/NAME, writes FOLDER/beams/NAME.json
"""

import json
import pathlib
import random
import sys

import torch
import transformers
from safetensors.torch import load_file

NAMES = ("llama_tied", "mistral_window", "gemma3", "qwen3")
NOISE = 2e-3
TRIALS = 8
TRIES = 40  # choices of end tokens and prompts, until a case can be kept

# What is asked, beside the prompt and the end tokens: ends, how many of them there are.
CASES = (
    dict(num_beams=2, max_new_tokens=12, ends=0),
    dict(num_beams=4, max_new_tokens=20, num_return_sequences=4, ends=2),
    dict(num_beams=4, max_new_tokens=20, num_return_sequences=2, ends=3, early_stopping=True),
    dict(num_beams=3, max_new_tokens=16, num_return_sequences=3, ends=2, length_penalty=0.0),
    dict(num_beams=3, max_new_tokens=24, num_return_sequences=3, ends=3, length_penalty=2.5),
    dict(num_beams=4, max_new_tokens=16, num_return_sequences=4, ends=2, length_penalty=-1.0),
    dict(num_beams=2, max_new_tokens=16, num_return_sequences=2, ends=4, min_new_tokens=6),
    dict(num_beams=4, max_new_tokens=1, num_return_sequences=4, ends=2),
    dict(num_beams=3, max_new_tokens=16, num_return_sequences=3, ends=2, repetition_penalty=1.3),
    dict(num_beams=3, max_new_tokens=20, num_return_sequences=3, ends=2, no_repeat_ngram_size=2,
         banned=3),
)


class Noise(transformers.LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores + (torch.rand_like(scores) * 2 - 1) * NOISE


@torch.no_grad()
def search(model, prompt, ask, noisy=False):
    values = {key: value for key, value in ask.items() if key not in ("prompt", "ends", "banned")}
    if ask.get("banned"):
        values["suppress_tokens"] = ask["banned"]
    found = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        do_sample=False, eos_token_id=ask["ends"] or None, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True,
        logits_processor=transformers.LogitsProcessorList([Noise()] if noisy else []), **values)
    answers = []
    for ids, score in zip(found.sequences.tolist(), found.sequences_scores.tolist()):
        ids = ids[len(prompt):]
        # Shorter ones are filled up behind their end.
        first_end = next((i for i, token in enumerate(ids) if token in ask["ends"]
                          and i >= ask.get("min_new_tokens", 0)), len(ids) - 1)
        answers.append(dict(ids=ids[:first_end + 1], score=round(score, 6)))
    return answers


def tokens_of(answers):
    return [answer["ids"] for answer in answers]


def make_case(model, prompts, case, rng):
    for _ in range(TRIES):
        prompt = rng.choice(prompts)
        prompt = prompt[:rng.randint(3, len(prompt))]
        ask = {**case, "prompt": prompt, "ends": [], "banned": []}
        free = {**ask, "num_return_sequences": ask["num_beams"], "min_new_tokens": 0}
        seen = sorted({token for ids in tokens_of(search(model, prompt, free)) for token in ids})
        if len(seen) < case["ends"] + case.get("banned", 0):
            continue
        chosen = rng.sample(seen, case["ends"] + case.get("banned", 0))
        ask["ends"], ask["banned"] = sorted(chosen[:case["ends"]]), sorted(chosen[case["ends"]:])
        answers = search(model, prompt, ask)
        lengths = {len(ids) for ids in tokens_of(answers)}
        # With end tokens some are to be used, not all at the same place.
        if case["ends"] and case["max_new_tokens"] > 1 and len(lengths) < 2:
            continue
        noisy = (tokens_of(search(model, prompt, ask, noisy=True)) for _ in range(TRIALS))
        if all(other == tokens_of(answers) for other in noisy):
            return {**ask, "answers": answers}
    return None


def make(folder, name):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / name, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config = transformers.GenerationConfig()
    tensors = load_file(folder / name / "expected.safetensors")
    prompts = [tensors[f"prompt_{i}"].tolist() for i in range(3)]
    rng = random.Random(name)
    torch.manual_seed(1)
    cases = [make_case(model, prompts, case, rng) for case in CASES]
    kept = [case for case in cases if case]
    (folder / "beams").mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in kept)
    (folder / "beams" / f"{name}.json").write_text(f"[\n{lines}\n]\n")
    print(name, "kept", len(kept), "of", len(CASES),
          "lengths", [[len(ids) for ids in tokens_of(case["answers"])] for case in kept])


def main():
    folder = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or NAMES:
        make(folder, name)


if __name__ == "__main__":
    main()
