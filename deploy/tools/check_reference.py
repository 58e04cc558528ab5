#!/usr/bin/env python3
"""Compares `sirocco run` with the reference answers of SmolLM2-135M-Instruct, on any backend.

usage: check_reference.py --sirocco FILE --model FILE --references FOLDER
                          [--backend cpu] [--dtypes float32,...] [--modes eager,...]

FOLDER is tests/goldens/smollm2. Each case is answered greedily, and its reference answer is scored
after its prompt (teacher forcing). Needs nothing but Python. Prints a line a type and mode; exits 1
if one is out of the folder's tolerances.
"""
import argparse
import json
import os
import subprocess
import sys

MODES = {
    "eager": ("0", "2"),
    "decoder_graph": ("1", "0"),
    "decoder": ("1", "1"),
    "layer_graph": ("1", "2"),
    "layer": ("1", "3"),
}


def tolerance_of(args, dtype):
    """Of a chosen token: where the reference's margin is at least the first, the best id is the
    reference's. The second: how far its logprob may be off."""
    with open(os.path.join(args.references, "tolerances.json"), encoding="utf-8") as file:
        tolerances = json.load(file)
    cpu = (args.backend, dtype) == ("cpu", "bfloat16")
    found = tolerances["bfloat16 with float32 arithmetic" if cpu else dtype]
    return found["margin"], found["logprob"]


def answer(args, dtype, mode, requests):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SIROCCO_", "EOLE_"))}
    env["EOLE_TORCH_COMPILE"], env["EOLE_COMPILE_MODE"] = MODES[mode]
    result = subprocess.run(
        [args.sirocco, "run", "--model", args.model, "--backend", args.backend, "--dtype", dtype,
         "--max-batch-size", "8", "--max-length", "1024"],
        input="".join(json.dumps(request) + "\n" for request in requests), env=env, text=True,
        stdout=subprocess.PIPE)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    if result.returncode != 0 or len(answers) != len(requests):
        raise SystemExit(f"{dtype} {mode}: sirocco run ended with {result.returncode} and "
                         f"{len(answers)} answers to {len(requests)} requests: {answers[:1]}")
    return answers


def token_of(logprob):
    return logprob.get("tokenId", 0)


def check(args, dtype, mode, cases):
    """What is wrong, and the largest error of a logprob."""
    margin, tolerance = tolerance_of(args, dtype)
    requests = []
    for case in cases:
        prompt, completion = case["prompt_token_ids"], case["completion_token_ids"]
        requests.append({"promptTokenIds": {"ids": prompt}, "maxNewTokens": 64,
                         "sampling": {"temperature": 0}})
        requests.append({"promptTokenIds": {"ids": prompt + completion}, "maxNewTokens": 0,
                         "logprobs": {"prompt": True, "top": 1}})
    answers = answer(args, dtype, mode, requests)
    wrong, worst, compared = [], 0.0, 0
    for i, case in enumerate(cases):
        reference, margins = case["completion_token_ids"], case["margins"]
        got = answers[2 * i]["completions"][0].get("tokenIds", [])
        sure = next((s for s, m in enumerate(margins) if m < margin), len(margins))
        if got[:sure] != reference[:sure]:
            wrong.append(f"case {case['id']}: answered {got[:sure]}, reference {reference[:sure]}")
        if sure == len(margins) and got != reference:
            wrong.append(f"case {case['id']}: answered {len(got)} tokens, not {len(reference)}")
        scored = answers[2 * i + 1]["promptLogprobs"][len(case["prompt_token_ids"]):]
        for step, score in enumerate(scored):
            error = abs(score.get("logprob", 0.0) - case["logprobs"][step])
            worst = max(worst, error)
            if error > tolerance:
                wrong.append(f"case {case['id']} step {step}: logprob off by {error:.4f}")
            if margins[step] >= margin:
                compared += 1
                if token_of(score["top"][0]) != reference[step]:
                    wrong.append(f"case {case['id']} step {step}: best is "
                                 f"{token_of(score['top'][0])}, reference {reference[step]}")
    if compared < 20:
        wrong.append(f"only {compared} steps could be compared")
    return wrong, worst, compared


def main():
    parser = argparse.ArgumentParser()
    for name in ("sirocco", "model", "references"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--modes", default="eager")
    args = parser.parse_args()
    with open(os.path.join(args.references, "cases.jsonl"), encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    failed = False
    for dtype in args.dtypes.split(","):
        for mode in args.modes.split(","):
            wrong, worst, compared = check(args, dtype, mode, cases)
            failed |= bool(wrong)
            print(f"{'FAILED' if wrong else 'passed'}: {args.backend} {dtype} {mode}: "
                  f"{compared} steps, logprobs within {worst:.5f}", flush=True)
            for line in wrong[:8]:
                print("  " + line, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
