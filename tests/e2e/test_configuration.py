"""Flag, then environment, then file, then default; a bad one ends any command with one line."""
import json
import os
import socket

import pytest

from harness import Server, run_cli


@pytest.fixture(scope="module")
def bare_model(bare):
    return ["--model", bare]


def assert_refused(result, *names, status=2):
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    for name in names:
        assert name in lines[0]


class TestMode:
    @pytest.mark.parametrize("variables, names", [
        ({"EOLE_TORCH_COMPILE": "2"}, ["EOLE_TORCH_COMPILE", "2", "0", "1"]),
        ({"EOLE_TORCH_COMPILE": "yes"}, ["EOLE_TORCH_COMPILE", "yes"]),
        ({"EOLE_TORCH_COMPILE": ""}, ["EOLE_TORCH_COMPILE"]),
        ({"EOLE_TORCH_COMPILE": " 1"}, ["EOLE_TORCH_COMPILE"]),
        ({"EOLE_COMPILE_MODE": "4"}, ["EOLE_COMPILE_MODE", "4"]),
        ({"EOLE_COMPILE_MODE": ""}, ["EOLE_COMPILE_MODE"]),
        ({"EOLE_COMPILE_MODE": "-1"}, ["EOLE_COMPILE_MODE", "-1"]),
        # Checked also where it would not matter.
        ({"EOLE_TORCH_COMPILE": "0", "EOLE_COMPILE_MODE": "fast"}, ["EOLE_COMPILE_MODE", "fast"]),
    ])
    @pytest.mark.parametrize("command", ["serve", "run", "check-config"])
    def test_bad_variable(self, bare_model, command, variables, names):
        assert_refused(run_cli(command, *bare_model, mode=None, env=variables), *names)

    @pytest.mark.parametrize("variables, mode", [
        ({}, "eager"),
        ({"EOLE_COMPILE_MODE": "0"}, "eager"),
        ({"EOLE_TORCH_COMPILE": "1"}, "layer_graph"),
    ])
    def test_defaults(self, bare, variables, mode):
        with Server(bare, mode=None, env=variables) as server:
            assert server.get_model().mode == mode
            hint = [line for line in server.stderr().splitlines()
                    if "EOLE_TORCH_COMPILE" in line]
            assert len(hint) == (1 if mode == "eager" else 0)


class TestKeys:
    @pytest.mark.parametrize("flags, names", [
        (["--max-batch-size", "0"], ["max_batch_size", "0", "1", "512"]),
        (["--max-batch-size", "513"], ["max_batch_size", "513"]),
        (["--max-batch-size", "many"], ["max_batch_size", "many"]),
        (["--max-length", "0"], ["max_length"]),
        (["--max-length", "513"], ["max_length", "513", "512"]),
        (["--block-size", "0"], ["block_size"]),
        (["--dtype", "int3"], ["dtype", "int3", "float32"]),
        (["--backend", "tpu"], ["backend", "tpu", "cpu"]),
        (["--listen", "nowhere"], ["listen", "nowhere"]),
        (["--listen", "127.0.0.1:99999"], ["listen", "99999"]),
        (["--kv-cache-memory", "much"], ["kv_cache_memory", "much"]),
        (["--memory-fraction", "1.5"], ["memory_fraction", "1.5", "0.9"]),
        (["--drain-timeout", "soon"], ["drain_timeout", "soon"]),
        (["--threads", "0"], ["threads"]),
        (["--max-queue-size", "-1"], ["max_queue_size", "-1"]),
        (["--log-level", "loud"], ["log_level", "loud"]),
        (["--log-format", "xml"], ["log_format", "xml"]),
        (["--prefill-chunk-size", "0"], ["prefill_chunk_size"]),
        (["--vllm-metrics", "perhaps"], ["vllm_metrics", "perhaps"]),
        (["--no-such-key", "1"], ["no-such-key"]),
    ])
    def test_bad_flag(self, bare_model, flags, names):
        assert_refused(run_cli("serve", *bare_model, "--listen", "127.0.0.1:0",
                               "--metrics-listen", "127.0.0.1:0", *flags)
                       if "--listen" not in flags else run_cli("serve", *bare_model, *flags),
                       *names)

    def test_bad_environment(self, bare_model):
        result = run_cli("serve", *bare_model, env={"SIROCCO_MAX_BATCH_SIZE": "x"})
        assert_refused(result, "SIROCCO_MAX_BATCH_SIZE", "x")

    def test_variables_that_kubernetes_makes_are_no_keys(self, bare_model):
        result = run_cli("check-config", *bare_model,
                         env={"SIROCCO_SERVICE_HOST": "10.0.0.1", "SIROCCO_PORT": "tcp://x:1"})
        assert result.returncode == 0

    @pytest.mark.parametrize("text, names", [
        ("no_such_key: 1\n", ["no_such_key"]),
        ("max_batch_size: lots\n", ["max_batch_size", "lots"]),
        ("max_batch_size: [1]\n", ["max_batch_size"]),
        ("max_batch_size: 4\nmax_batch_size: 5\n", ["max_batch_size"]),
        ("max_batch_size: {\n", ["config.yaml"]),
        ("- a list\n", ["config.yaml"]),
    ])
    def test_bad_file(self, bare_model, tmp_path, text, names):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        for command in ("serve", "check-config"):
            assert_refused(run_cli(command, *bare_model, "--config", file), *names)

    def test_missing_file(self, bare_model, tmp_path):
        assert_refused(run_cli("serve", *bare_model, "--config", tmp_path / "none.yaml"),
                       "none.yaml")

    def test_precedence(self, bare_model, tmp_path):
        file = tmp_path / "config.yaml"
        file.write_text("max_batch_size: 3\nmax_length: 100\nblock_size: 32\n")
        result = run_cli("check-config", *bare_model, "--config", file, "--max-batch-size", 5,
                         env={"SIROCCO_MAX_BATCH_SIZE": "4", "SIROCCO_MAX_LENGTH": "200"})
        assert result.returncode == 0, result.stderr
        effective = dict(line.split(":", 1) for line in result.stdout.splitlines()
                         if ":" in line and not line.startswith("#"))
        assert effective["max_batch_size"].split()[0] == "5"
        assert effective["max_length"].split()[0] == "200"
        assert effective["block_size"].split()[0] == "32"
        assert effective["prefill_chunk_size"].split()[0] == "1024"

    def test_effective_configuration_is_a_configuration(self, bare_model, tmp_path):
        first = run_cli("check-config", *bare_model, "--max-batch-size", 5)
        file = tmp_path / "effective.yaml"
        file.write_text(first.stdout)
        again = run_cli("check-config", "--config", file)
        assert again.returncode == 0
        # Only where the values come from is another place.
        values = [[line.split("  # ")[0] for line in run.stdout.splitlines()]
                  for run in (first, again)]
        assert values[0] == values[1] and "max_batch_size: 5" in values[1]

    def test_a_file_alone_serves(self, bare, tmp_path):
        file = tmp_path / "config.yaml"
        file.write_text("max_batch_size: 3\nserved_model_name: my-model\n")
        with Server(bare, "--config", file) as server:
            model = server.get_model()
            assert (model.name, model.max_batch_size, model.max_length) == ("my-model", 3, 512)
            assert server.generate(model="my-model", prompt_token_ids={"ids": [5]},
                                   max_new_tokens=1).completions

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
    def test_dtype(self, bare, dtype):
        with Server(bare, "--dtype", dtype) as server:
            expected = "float32" if dtype == "float32" else "bfloat16"
            assert server.get_model().dtype == expected
            assert server.metrics()("sirocco_build_info", dtype=expected) == 1


class TestModelFiles:
    def refused(self, path, *names, commands=("serve", "info", "run")):
        for command in commands:
            assert_refused(run_cli(command, "--model", path), *names)

    def test_missing(self, tmp_path):
        self.refused(tmp_path / "nothing.gguf", "nothing.gguf")

    def test_none_given(self):
        assert_refused(run_cli("serve"), "model")

    def test_empty_folder(self, tmp_path):
        self.refused(tmp_path, "config.json")

    def test_empty_file(self, tmp_path):
        (tmp_path / "empty.gguf").write_bytes(b"")
        self.refused(tmp_path / "empty.gguf", "empty.gguf")

    def test_not_a_model(self, tmp_path):
        (tmp_path / "odd.gguf").write_bytes(os.urandom(4096))
        self.refused(tmp_path / "odd.gguf", "odd.gguf")

    def test_cut_short(self, smollm2, tmp_path):
        with open(smollm2, "rb") as whole:
            (tmp_path / "cut.gguf").write_bytes(whole.read(4 << 20))
        self.refused(tmp_path / "cut.gguf", "cut.gguf")

    @pytest.mark.parametrize("name, content", [
        ("config.json", b"{"), ("config.json", b"[]"), ("config.json", b'{"model_type": "mamba"}'),
        ("model.safetensors", b""), ("model.safetensors", b"\xff" * 64),
    ])
    def test_damaged_folder(self, bare, tmp_path, name, content):
        for file in os.listdir(bare):
            if file != "expected.safetensors":
                (tmp_path / file).symlink_to(os.path.join(bare, file))
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(content)
        self.refused(tmp_path, name if content != b'{"model_type": "mamba"}' else "mamba")


class TestStart:
    @pytest.mark.parametrize("key", ["listen", "metrics-listen"])
    def test_a_taken_port(self, bare_model, key):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            flags = {"listen": "127.0.0.1:0", "metrics-listen": "127.0.0.1:0", key: address}
            result = run_cli("serve", *bare_model,
                             *[part for k, v in flags.items() for part in (f"--{k}", v)])
            assert result.returncode == 1
            assert result.stdout == "" and address in result.stderr

    def test_too_little_memory_for_one_sequence(self, bare_model):
        result = run_cli("serve", *bare_model, "--listen", "127.0.0.1:0", "--metrics-listen",
                         "127.0.0.1:0", "--kv-cache-memory", "1KiB")
        assert result.returncode == 1 and "kv_cache_memory" in result.stderr

    def test_the_memory_plan_is_shown_and_kept(self, bare):
        with Server(bare, "--max-batch-size", 3) as server:
            plan = [line for line in server.stderr().splitlines() if "memory plan: " in line]
            for use in ("weights", "workspace", "lanes", "kv, full attention", "in all"):
                assert sum(f"memory plan: {use} " in line for line in plan) == 1, plan
            before = server.metrics()
            server.generate(prompt_token_ids={"ids": [5]}, max_new_tokens=4)
            after = server.metrics()
            for use in ("weights", "workspace", "lanes", "kv", "graphs"):
                assert after("sirocco_memory_bytes", use=use) == \
                    before("sirocco_memory_bytes", use=use)

    @pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a CUDA device here")
    def test_cuda_where_there_is_none(self, bare_model):
        for command in ("serve", "run", "info", "check-config"):
            result = run_cli(command, *bare_model, "--backend", "cuda")
            assert_refused(result, "backend", "cuda", status=1)

    @pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a CUDA device here")
    def test_auto_says_in_one_line_what_it_took_and_why(self, bare):
        with Server(bare, "--backend", "auto") as server:
            assert server.get_model().backend == "cpu"
            said = [line for line in server.stderr().splitlines() if "why=" in line]
            assert len(said) == 1 and "backend cpu" in said[0] and "cuda" in said[0]

    @pytest.mark.skipif(not os.path.exists("/dev/nvidiactl"), reason="there is no CUDA device here")
    @pytest.mark.parametrize("mode", ["decoder_graph", "layer_graph"])
    @pytest.mark.parametrize("backend", ["auto", "cuda"])
    def test_modes_with_graphs_on_cuda(self, bare, backend, mode):
        answers = []
        for twin in (mode, mode.removesuffix("_graph")):
            with Server(bare, "--backend", backend, "--max-batch-size", 3, mode=twin) as server:
                assert server.get_model().backend == "cuda"
                parts = {"decoder_graph": 1, "layer_graph": 3}.get(twin, 0)
                assert server.metrics()("sirocco_graphs", state="captured") == 3 * parts
                assert ("graphs captured" in server.stderr()) == (parts > 0)
                response = server.generate(prompt_token_ids={"ids": [5, 6]}, max_new_tokens=32,
                                           stop={"ignore_eos": True})
                answers.append(list(response.completions[0].token_ids))
        assert answers[0] == answers[1], "a graph changes no bit"

    @pytest.mark.parametrize("key", ["dtype", "kv-cache-dtype"])
    def test_float16_on_the_cpu(self, bare_model, key):
        for command in ("serve", "info", "check-config"):
            assert_refused(run_cli(command, *bare_model, f"--{key}", "float16"),
                           key.replace("-", "_"), "float16", "cpu", "bfloat16")

    def test_logs_in_json(self, bare):
        with Server(bare, "--log-format", "json") as server:
            lines = [line for line in server.stderr().splitlines() if line]
            assert lines and all(isinstance(json.loads(line), dict) for line in lines)

    def test_all_interfaces(self, bare):
        with Server(bare, listen=("0.0.0.0:0", "0.0.0.0:0")) as server:
            assert server.address.startswith("0.0.0.0:")
            server.connect(server.address.replace("0.0.0.0", "127.0.0.1"),
                           server.metrics_address.replace("0.0.0.0", "127.0.0.1"))
            assert server.check_health() == "SERVING"
            assert server.http_status("/healthz") == 200


def test_unknown_command_and_no_command():
    for arguments in ([], ["explode"]):
        result = run_cli(*arguments)
        assert result.returncode == 2 and result.stderr


def test_help_and_version():
    for arguments in (["--help"], ["serve", "--help"], ["--version"]):
        result = run_cli(*arguments)
        assert result.returncode == 0 and result.stdout
