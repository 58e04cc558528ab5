"""Makes expected.json: how probable transformers finds text.txt, read in windows.

Needs PyPI's torch, transformers and safetensors; the file here was made with transformers 5.24.
The model is the one that tests/e2e/tiny_model.py writes (random, always the same), with the
tokenizer of tests/goldens/tokenizers/digits_style, in float32.

A case has `context`, `stride`, `tokens`, `scored` and `log_likelihood`, the sum of the natural
logarithms. Windows are those of transformers' documentation ("Perplexity of fixed-length models");
only, what is scored is counted and not estimated: all ids but the first.
"""

import json
import pathlib
import sys
import tempfile

import torch
import transformers

HERE = pathlib.Path(__file__).parent
TOKENIZER = HERE.parent / "tokenizers/digits_style"
WINDOWS = ((512, 256), (128, 64), (128, 127), (64, 16), (33, 1))

sys.path.insert(0, str(HERE.parents[1] / "e2e"))
import tiny_model  # noqa: E402  (found only now)


def score(model, ids, context, stride):
    """The sum, and how many ids are in it."""
    total, scored, last_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        window = torch.tensor([ids[begin:end]])
        logprobs = torch.log_softmax(model(window).logits[0].double(), dim=-1)
        # The logits at a position are of the id after it.
        for position in range(max(last_end, 1), end):
            total += logprobs[position - begin - 1, ids[position]].item()
            scored += 1
        last_end = end
        if end == len(ids):
            return total, scored


def main():
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_model.write(folder + "/tiny", str(TOKENIZER))
        model = transformers.LlamaForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER / "tokenizer.json"))
    ids = tokenizer((HERE / "text.txt").read_text(encoding="utf-8"))["input_ids"]
    cases = []
    for context, stride in WINDOWS:
        total, scored = score(model, ids, context, stride)
        assert scored == len(ids) - 1
        cases.append({"context": context, "stride": stride, "tokens": len(ids), "scored": scored,
                      "log_likelihood": total})
    (HERE / "expected.json").write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
