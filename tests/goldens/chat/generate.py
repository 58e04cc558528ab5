"""Makes the references for the chat template tests with jinja2 as transformers configures it.

    pip install 'transformers>=5' jinja2
    python generate.py

expressions.txt           -> expressions.jsonl (after a first line with the variables)
templates/*.jinja,
conversations.json        -> rendered.jsonl
"""

import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = pathlib.Path(__file__).parent

CONTEXT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi there"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Größe?"},
    ],
    "kwargs": {
        "x": {
            "str": "text",
            "int": 3,
            "float": 2.5,
            "none": None,
            "true": True,
            "list": ["a", "b", "c", "d"],
            "dict": {"z": 1, "a": {"b": "deep"}, "é": [1, {"k": "v"}]},
            "objects": [
                {"name": "beta", "n": 2, "on": True, "sub": {"v": 1}},
                {"name": "alpha", "n": 1, "on": False, "sub": {"v": 2}},
                {"name": "Gamma", "n": 1, "on": True, "sub": {}},
            ],
        }
    },
    "bos_token": "<s>",
    "eos_token": "</s>",
    "add_generation_prompt": True,
}


def render(template, case):
    variables = {"messages": case.get("messages", []), "tools": case.get("tools"),
                 "documents": case.get("documents"),
                 "add_generation_prompt": case.get("add_generation_prompt", False)}
    for token in ("bos_token", "eos_token"):
        if case.get(token):
            variables[token] = case[token]
    variables.update(case.get("kwargs", {}))
    try:
        return {"text": _compile_jinja_template(template).render(**variables)}
    except Exception as error:  # whatever jinja2 or Python refuses
        return {"error": f"{type(error).__name__}: {error}"}


def dump(path, rows):
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def expressions():
    yield CONTEXT
    for line in (HERE / "expressions.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") or not line:
            continue
        template = json.loads('"' + line.replace('"', '\\"') + '"')
        yield {"template": template, **render(template, CONTEXT)}


def rendered():
    conversations = json.loads((HERE / "conversations.json").read_text(encoding="utf-8"))
    for path in sorted((HERE / "templates").glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        for name, case in conversations.items():
            tokens = {"bos_token": "<s>", "eos_token": "</s>"}
            yield {"template": path.name, "conversation": name,
                   **render(source, {**tokens, **case})}


if __name__ == "__main__":
    dump(HERE / "expressions.jsonl", expressions())
    if (HERE / "conversations.json").exists():
        dump(HERE / "rendered.jsonl", rendered())
