"""deploy/examples: built as their Makefiles say, and run against the real server."""
import json
import os
import subprocess
import sys

import pytest

from harness import ROOT, eventually

EXAMPLES = os.path.join(ROOT, "deploy/examples")
QUESTION = "What is the capital of Japan?"
STORY = "Tell me a very long story about the sea."

# What runs an example that lies in FOLDER and was built in OUT.
PROGRAMS = {
    "python": (sys.executable, "FOLDER/stream_chat.py"),
    "python with asyncio": (sys.executable, "FOLDER/stream_chat_async.py"),
    "go": ("OUT/stream_chat",),
    "ruby": ("ruby", "-IOUT", "FOLDER/stream_chat.rb"),
    "java": ("OUT/stream_chat",),
    "cpp": ("OUT/stream_chat",),
}


class Example:
    def __init__(self, name, out):
        self.folder = os.path.join(EXAMPLES, name.split()[0])
        self.out = str(out)
        build = subprocess.run(
            ["make", "-C", self.folder, f"OUT={out}", f"PYTHON={sys.executable}"],
            capture_output=True, text=True, timeout=600)
        assert build.returncode == 0, build.stdout + build.stderr
        self.command = [part.replace("FOLDER", self.folder).replace("OUT", self.out)
                        for part in PROGRAMS[name]]

    def run(self, *args):
        return subprocess.run([*self.command, *map(str, args)], capture_output=True,
                              encoding="utf-8", timeout=120,
                              env={**os.environ, "PYTHONPATH": self.out, "LANG": "C.UTF-8"})


@pytest.fixture(scope="module", params=PROGRAMS)
def example(request, tmp_path_factory):
    return Example(request.param, tmp_path_factory.mktemp("built"))


def ended(server, code):
    return server.metrics()("sirocco_requests_total", method="GenerateStream", code=code)


@pytest.fixture(scope="module")
def answers(smollm2_server):
    """Question -> the whole answer."""
    out = {}
    for question in (QUESTION, STORY):
        chat = {"messages": [{"role": "user", "content": question}]}
        out[question] = smollm2_server.generate(chat=chat, max_new_tokens=512).completions[0].text
    return out


def test_an_answer(example, smollm2_server, answers):
    result = example.run(smollm2_server.address, QUESTION)
    assert result.returncode == 0, result.stderr
    assert result.stdout == answers[QUESTION] + "\n"
    assert "Tokyo" in result.stdout


def test_a_deadline(example, smollm2_server, answers):
    result = example.run(smollm2_server.address, STORY, 0.5)
    assert result.returncode == 1
    assert "deadlineexceeded" in result.stderr.lower().replace("_", ""), result.stderr
    # Part of the story, and an end of the line.
    assert answers[STORY].startswith(result.stdout.rstrip("\n"))
    eventually(smollm2_server.idle)


def test_a_cancel(example, smollm2_server, answers):
    before = ended(smollm2_server, "CANCELLED")
    result = example.run(smollm2_server.address, STORY, 60, 20)
    assert (result.returncode, result.stderr) == (0, "")
    text = result.stdout.removesuffix("\n")
    assert answers[STORY].startswith(text) and 20 <= len(text) < len(answers[STORY])
    eventually(lambda: ended(smollm2_server, "CANCELLED") == before + 1)


def test_a_client_by_reflection(smollm2_server):
    """Without the stubs: nothing of them is in its path."""
    result = subprocess.run(
        [sys.executable, os.path.join(EXAMPLES, "python/reflect.py"), smollm2_server.address,
         "The wind"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)["completions"][0]
    assert answer["text"] == smollm2_server.generate(
        prompt="The wind", max_new_tokens=20).completions[0].text
