"""The commands of `sirocco` beside `serve`."""
import itertools
import json
import os
import re
import shutil
import subprocess

import pytest

from harness import ANSWER, BINARY, GOLDENS, MODES, QUESTION, read_jsonl, run_cli


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


class TestGenerate:
    def generate(self, server, *args, **options):
        return run_cli("generate", "--address", server.address, *args, **options)

    def test_chat(self, smollm2_server):
        result = self.generate(smollm2_server, "--chat", QUESTION)
        assert (result.returncode, result.stdout) == (0, ANSWER + "\n"), result.stderr

    def test_prompt_from_stdin(self, smollm2_server):
        result = self.generate(smollm2_server, "--chat", stdin=QUESTION)
        assert (result.returncode, result.stdout) == (0, ANSWER + "\n"), result.stderr

    def test_completion(self, smollm2_server):
        request = {"prompt": "Once upon a time", "max_new_tokens": 12}
        expected = smollm2_server.generate(**request).completions[0].text
        result = self.generate(smollm2_server, "--max-new-tokens", 12, "--temperature", 0,
                               request["prompt"])
        assert (result.returncode, result.stdout) == (0, expected + "\n")

    def test_json(self, smollm2_server):
        result = self.generate(smollm2_server, "--chat", "--json", QUESTION)
        assert result.returncode == 0, result.stderr
        values = json_lines(result.stdout)
        assert values and all(isinstance(value, dict) for value in values)
        assert "Tokyo" in result.stdout

    def test_nobody_listens(self):
        result = run_cli("generate", "--address", "127.0.0.1:1", "hello")
        assert result.returncode == 1 and "127.0.0.1:1" in result.stderr

    def test_server_refuses(self, smollm2_server):
        result = self.generate(smollm2_server, "--temperature", 200, "hello")
        assert result.returncode == 1 and "temperature" in result.stderr


def test_chat(smollm2_server):
    result = run_cli("chat", "--address", smollm2_server.address, stdin=QUESTION + "\n")
    assert result.returncode == 0, result.stderr
    assert ANSWER in result.stdout


class TestTokenize:
    def test_lines(self, smollm2):
        chat = read_jsonl("smollm2/cases.jsonl")[0]
        result = run_cli("tokenize", "--model", smollm2, stdin="\n".join([
            '{"text": "Hello!"}', '{"ids": [19556, 17]}', json.dumps({"messages": chat["messages"]}),
            '{"ids": [1, 19556, 2], "skip_special_tokens": false}',
        ]) + "\n")
        assert result.returncode == 0, result.stderr
        first, second, third, fourth = json_lines(result.stdout)
        assert first == {"ids": [19556, 17]}
        assert second == {"text": "Hello!"}
        assert third == {"ids": chat["prompt_token_ids"]}
        assert fourth == {"text": "<|im_start|>Hello<|im_end|>"}

    def test_bad_lines_go_on(self, smollm2):
        result = run_cli("tokenize", "--model", smollm2, stdin="\n".join([
            "nonsense", '{"text": 5}', '{}', '{"ids": [99999999]}', '{"ids": [-1]}',
            '{"text": "x", "surprise": 1}', '{"text": "Hello!"}',
        ]) + "\n")
        assert result.returncode == 1
        *bad, good = json_lines(result.stdout)
        assert len(bad) == 6 and all(set(line) == {"error"} for line in bad)
        assert good == {"ids": [19556, 17]}


class TestRun:
    def test_lines(self, bare):
        request = {"promptTokenIds": {"ids": [5, 6, 7]}, "maxNewTokens": 6,
                   "stop": {"ignoreEos": True}, "logprobs": {"top": 1}}
        snake = {"prompt_token_ids": {"ids": [5, 6, 7]}, "max_new_tokens": 6,
                 "stop": {"ignore_eos": True}, "logprobs": {"top": 1}}
        result = run_cli("run", "--model", bare,
                         stdin="".join(json.dumps(line) + "\n" for line in (request, snake)))
        assert result.returncode == 0, result.stderr
        first, second = json_lines(result.stdout)
        assert len(first["completions"][0]["tokenIds"]) == 6
        assert first["completions"] == second["completions"]
        assert first["usage"] == {"promptTokens": 3, "completionTokens": 6}

    def test_bad_line_goes_on(self, bare):
        result = run_cli("run", "--model", bare, stdin="\n".join([
            "nonsense", '{"promptTokenIds": {"ids": [9999]}}', '{"noSuchField": 1}',
            '{"promptTokenIds": {"ids": [5]}, "maxNewTokens": 1}']) + "\n")
        assert result.returncode == 1
        lines = json_lines(result.stdout)
        assert ["error" in line for line in lines] == [True, True, True, False]

    @pytest.mark.parametrize("mode", MODES)
    def test_agrees_with_the_server(self, smollm2, smollm2_server, mode):
        request = {"prompt": "Once upon a time", "max_new_tokens": 8}
        result = run_cli("run", "--model", smollm2, "--max-batch-size", 1, "--max-length", 256,
                         mode=mode, stdin=json.dumps(request) + "\n")
        assert result.returncode == 0, result.stderr
        (line,) = json_lines(result.stdout)
        served = smollm2_server.generate(**request).completions[0]
        assert line["completions"][0]["text"] == served.text


class TestInfo:
    def machine(self, *flags):
        """What `sirocco info` says of this machine: (name, value) of each line."""
        result = run_cli("info", *flags)
        assert result.returncode == 0, result.stderr
        return [(line[:18].strip(), line[18:].strip()) for line in result.stdout.splitlines()]

    def test_this_machine(self):
        facts = dict(self.machine("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"))
        assert {"processor", "CPU kernels", "memory", "driver", "CUDA device", "backend", "listen",
                "metrics listen", "open files", "threads", "address space", "mode"} <= set(facts)
        assert facts["backend"] == "cpu"  # as these tests ask for
        assert " free of " in facts["memory"]
        assert facts["listen"] == "127.0.0.1:0 is free"
        if not os.path.exists("/proc/driver/nvidia/version"):
            assert facts["driver"].startswith("none")
            assert facts["CUDA device"].startswith("none: ")
        assert facts["mode"].startswith("decoder_graph (")

    def test_a_port_that_is_taken(self, smollm2_server):
        facts = dict(self.machine("--listen", smollm2_server.address, "--metrics-listen",
                                  smollm2_server.metrics_address))
        for key, address in (("listen", smollm2_server.address),
                             ("metrics listen", smollm2_server.metrics_address)):
            assert address in facts[key] and "in use" in facts[key], facts[key]

    def test_files(self, smollm2):
        result = run_cli("info", "--model", smollm2)
        assert result.returncode == 0, result.stderr
        for fact in ("llama", "49152", "8192"):
            assert fact in result.stdout, fact

    def test_server(self, smollm2_server):
        result = run_cli("info", "--address", smollm2_server.address)
        assert result.returncode == 0, result.stderr
        for fact in ("llama", "decoder_graph", "cpu", "2048", "49152"):
            assert fact in result.stdout, fact

    @pytest.mark.parametrize("mode", MODES)
    def test_plan(self, bare, mode):
        result = run_cli("info", "--model", bare, "--plan", mode=mode)
        assert result.returncode == 0, result.stderr
        assert mode in result.stdout

    @pytest.mark.parametrize("golden", ["llama_tied", "llama3_rope", "qwen2"])
    def test_folder(self, golden):
        result = run_cli("info", "--model", os.path.join(GOLDENS, golden))
        assert result.returncode == 0, result.stderr
        assert "384" in result.stdout

    @pytest.mark.parametrize("golden, facts", [
        ("mixtral", ["experts", "4 of intermediate size", "2 a token"]),
        ("gemma3", ["windows", " tokens, ", " without one"]),
        ("mistral_window", [" layers of ", " tokens\n"]),
        ("llama_tied", ["windows            none\n", "auto; most weights are neither",
                        "kernels            rows by ", ", weights in blocks by "])])
    def test_what_was_understood(self, golden, facts):
        result = run_cli("info", "--model", os.path.join(GOLDENS, golden))
        assert result.returncode == 0, result.stderr
        for fact in facts:
            assert fact in result.stdout, (fact, result.stdout)

    def test_why_a_mode(self, bare):
        def said(mode):
            out = run_cli("info", "--model", bare, mode=mode).stdout
            return next(line for line in out.splitlines() if line.startswith("mode "))
        assert said("eager").endswith(" eager (EOLE_TORCH_COMPILE is 0)")
        assert said("layer").endswith(" layer (EOLE_TORCH_COMPILE is 1, EOLE_COMPILE_MODE is 3)")

    def test_why_a_dtype(self, smollm2):
        as_it_is = run_cli("info", "--model", smollm2)
        assert "which cpu computes from" in as_it_is.stdout, as_it_is.stdout
        named = run_cli("info", "--model", smollm2, "--dtype", "float32")
        assert "float32 (as asked, by flag)" in named.stdout, named.stdout


class TestHelp:
    COMMANDS = re.findall(r"^  ([a-z][a-z-]*) {2,}\S",
                          run_cli("--help").stdout.partition("Subcommands:")[2], re.MULTILINE)

    def test_there_are_commands(self):
        assert {"serve", "generate", "bench", "info"} < set(self.COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_it_teaches(self, command):
        """Each command's help has a command line to copy, whose flags it has; the keys that it takes are
        explained each."""
        text = run_cli(command, "--help").stdout
        examples = re.findall(rf"^  sirocco {command}(.*)$", text, re.MULTILINE)
        assert examples, text
        have = set(re.findall(r"^  (?:-\w,)?(--[a-z-]+)", text, re.MULTILINE))
        for example in examples:
            assert set(re.findall(r"(?<= )--[a-z-]+", example)) <= have, example
        for line, following in itertools.pairwise(text.splitlines()):
            if re.match(r"  (?:-\w,)?--", line):
                # From column 31 on, or on the next line.
                assert line[30:].strip() or following.startswith(" " * 30), line


def test_check_config(bare):
    result = run_cli("check-config", "--model", bare)
    assert result.returncode == 0, result.stderr
    assert "max_batch_size: 64" in result.stdout


def test_it_runs_from_anywhere(tmp_path):
    """The installed tree may be moved: its libraries are found from where it stands."""
    tree = os.path.dirname(os.path.dirname(BINARY))
    shutil.copytree(tree, tmp_path / "elsewhere")
    moved = subprocess.run([tmp_path / "elsewhere/bin/sirocco", "--version"], cwd="/",
                           env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert moved.returncode == 0, moved.stderr
    libraries = subprocess.run(["ldd", tmp_path / "elsewhere/bin/sirocco"], text=True,
                               capture_output=True).stdout
    assert "not found" not in libraries
    assert str(tmp_path) in libraries
