#!/usr/bin/env python3
"""Whether a model computed from its blocks is as good as the same model dequantised: perplexity of
texts that every Debian has, and the answers to goldens/smollm2. Prints a table in Markdown; exit
status 1 where the default may not be to compute from blocks.

usage: tests/bench/block_quality.py SIROCCO MODEL.gguf
"""
import json
import math
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEXTS = ["GPL-3", "GFDL-1.3", "MPL-2.0", "Artistic"]  # of /usr/share/common-licenses
CHUNK_CHARACTERS = 2000  # some 500 tokens, each chunk scored on its own
LEAST_TOKENS = 4096
MOST_PERPLEXITY = 0.005  # by how much it may rise
LEAST_MARGIN = 0.2  # a step whose margin is below this may go another way, and all after it
DTYPES = ["float32", "bfloat16", "auto"]


def run(sirocco, model, dtype, requests):
    """The answers of `sirocco run` to requests in their order."""
    command = [sirocco, "run", "--model", model, "--dtype", dtype, "--max-batch-size", "4",
               "--max-length", "2048", "--backend", "cpu"]
    environment = dict(os.environ, EOLE_TORCH_COMPILE="1", EOLE_COMPILE_MODE="0")
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=environment,
                          check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or any("error" in answer for answer in answers):
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-500:]}\n{done.stderr[-2000:]}")
    return answers


def chunks(text):
    return [text[at:at + CHUNK_CHARACTERS]
            for at in range(0, len(text) - CHUNK_CHARACTERS + 1, CHUNK_CHARACTERS)]


def perplexities(sirocco, model, dtype):
    """text -> (tokens, sum of their negative log-probabilities)"""
    wanted = []
    for name in TEXTS:
        with open(f"/usr/share/common-licenses/{name}", encoding="utf-8") as file:
            wanted += [(name, chunk) for chunk in chunks(file.read())]
    answers = run(sirocco, model, dtype,
                  [{"prompt": chunk, "maxNewTokens": 0, "logprobs": {"prompt": True}}
                   for _, chunk in wanted])
    sums = {name: (0, 0.0) for name in TEXTS}
    for (name, _), answer in zip(wanted, answers):
        scored = answer["promptLogprobs"][1:]
        tokens, total = sums[name]
        sums[name] = (tokens + len(scored), total - sum(t.get("logprob", 0.0) for t in scored))
    return sums


def equal_steps(sirocco, model, dtype):
    """[(equal steps, sure steps, all steps)] of each golden case."""
    with open(os.path.join(ROOT, "tests/goldens/smollm2/cases.jsonl"), encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    requests = [{"chat": {"messages": case["messages"]}, "maxNewTokens": 64}
                if case["kind"] == "chat" else {"prompt": case["prompt"], "maxNewTokens": 64}
                for case in cases]
    steps = []
    for case, answer in zip(cases, run(sirocco, model, dtype, requests)):
        ids, given = case["completion_token_ids"], answer["completions"][0]["tokenIds"]
        equal = next((i for i, (a, b) in enumerate(zip(ids, given)) if a != b),
                     min(len(ids), len(given)))
        sure = next((i for i, m in enumerate(case["margins"]) if m < LEAST_MARGIN), len(ids))
        steps.append((equal, sure, len(ids)))
    return steps


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sirocco, model = sys.argv[1:]
    scores = {dtype: perplexities(sirocco, model, dtype) for dtype in DTYPES}
    print(f"`{os.path.basename(model)}`; `auto` computes from blocks, the others dequantise.\n")
    print("| text | tokens | " + " | ".join(f"perplexity {d}" for d in DTYPES)
          + " | auto / float32 |")
    print("|---|---|" + "---|" * (len(DTYPES) + 1))
    total = {dtype: (sum(n for n, _ in scores[dtype].values()),
                     sum(s for _, s in scores[dtype].values())) for dtype in DTYPES}
    for name in TEXTS + ["all"]:
        row = {d: (scores[d][name] if name != "all" else total[d]) for d in DTYPES}
        ppl = {d: math.exp(s / n) for d, (n, s) in row.items()}
        print(f"| {name} | {row['float32'][0]:,} | "
              + " | ".join(f"{ppl[d]:.4f}" for d in DTYPES)
              + f" | {ppl['auto'] / ppl['float32'] - 1:+.3%} |")
    rise = math.exp((total["auto"][1] - total["float32"][1]) / total["float32"][0]) - 1
    enough = total["float32"][0] >= LEAST_TOKENS and rise <= MOST_PERPLEXITY

    print("\nSteps equal to the reference's, of those before the first whose margin is below "
          f"{LEAST_MARGIN}, and of all:\n")
    print("| dtype | cases | sure steps | of them equal | all steps | of them equal |")
    print("|---|---|---|---|---|---|")
    for dtype in DTYPES:
        steps = equal_steps(sirocco, model, dtype)
        sure = sum(s for _, s, _ in steps)
        equal = sum(min(e, s) for e, s, _ in steps)
        print(f"| {dtype} | {len(steps)} | {sure} | {equal} | {sum(n for _, _, n in steps)} | "
              f"{sum(e for e, _, _ in steps)} |")
        if dtype == "auto":
            enough = enough and equal == sure
    print("\nThe default may" + ("" if enough else " NOT") + " be to compute from blocks.")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
