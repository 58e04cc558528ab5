"""Makes STYLE/answer_prefix.jsonl: prompts and chats that the answer's beginning stands behind.

Needs PyPI's transformers and jinja2; the files here were made with transformers 5.24.

usage: make_answer_prefix.py [STYLE ...]     (default: all)

A line has `prompt` or `messages`, `answer_prefix`, and `ids`: those of one text, the prompt (with
what the tokenizer adds) or the rendered chat (with nothing added) with the prefix behind it.
`apart` is how many ids it would be if the prefix were tokenised apart: where it differs from the
length of `ids`, the joint was not kept.
"""

import json
import pathlib
import sys

import transformers

HERE = pathlib.Path(__file__).parent
STYLES = ("digits_style", "gemma_style", "llama2_style", "llama3_style", "qwen2_style")

PREFIXES = ("Sure", " Sure, the", "\n", "\n\nThe wind", "  two", "{\"city\": \"", "12", "'s",
            "\u00e9t\u00e9", "ing the", "s")
PROMPTS = ("The wind", "I walk", "count: 1", "line\n", "caf", "It", "two ")
CHATS = ([{"role": "user", "content": "Hello there."}],
         [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1"},
          {"role": "user", "content": "Go on."}])


def encode(tokenizer, text, add):
    return tokenizer(text, add_special_tokens=add)["input_ids"]


def cases(tokenizer):
    for prompt in PROMPTS:
        for prefix in PREFIXES:
            apart = len(encode(tokenizer, prompt, True)) + len(encode(tokenizer, prefix, False))
            yield {"prompt": prompt, "answer_prefix": prefix,
                   "ids": encode(tokenizer, prompt + prefix, True), "apart": apart}
    for messages in CHATS:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False,
                                                 add_generation_prompt=True)
        for prefix in PREFIXES:
            apart = (len(encode(tokenizer, rendered, False))
                     + len(encode(tokenizer, prefix, False)))
            yield {"messages": messages, "answer_prefix": prefix,
                   "ids": encode(tokenizer, rendered + prefix, False), "apart": apart}


def main():
    for style in sys.argv[1:] or STYLES:
        folder = HERE / style
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        # tokenizer.json is the reference, whatever class the configuration names (README.md).
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), bos_token=config.get("bos_token"),
            eos_token=config["eos_token"], chat_template=config["chat_template"],
            clean_up_tokenization_spaces=False)
        with open(folder / "answer_prefix.jsonl", "w", encoding="utf-8") as out:
            for case in cases(tokenizer):
                out.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
