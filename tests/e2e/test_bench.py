"""sirocco bench: what it measures, writes and refuses."""
import json
import os
import subprocess
import sys

import pytest

from harness import GOLDENS, MODES, Server, run_cli
from stubs import ROOT

SHORT = ["--prompt-length", 20, "--output-length", 5, "--repeat", 2, "--batch", "1,3"]


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    """A folder with nothing but a config.json."""
    folder = tmp_path_factory.mktemp("shape")
    with open(os.path.join(GOLDENS, "llama_tied/config.json"), "rb") as config:
        (folder / "config.json").write_bytes(config.read())
    return folder


def test_random_weights_from_a_bare_configuration(shape, tmp_path):
    file = tmp_path / "figures.json"
    result = run_cli("bench", "--engine", "--random-weights", "--model", shape, *SHORT, "--modes",
                     "eager,decoder_graph", "--stages", "--json", file)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    for mode in ("eager", "decoder_graph"):
        for batch in ("1", "3"):
            assert sum(row[:2] == [mode, batch] for row in rows) == 1, result.stdout
    assert "norm_qkv" in result.stdout and "prefill_attention" in result.stdout

    figures = json.loads(file.read_text())
    assert figures["backend"] == "cpu" and figures["dtype"] == "bfloat16"
    assert [mode["mode"] for mode in figures["modes"]] == ["eager", "decoder_graph"]
    for mode in figures["modes"]:
        assert [row["batch"] for row in mode["batches"]] == [1, 3]
        graphs = 3 if mode["mode"] == "decoder_graph" else 0
        assert mode["graphs"] == graphs
        assert (mode["capture_seconds"] > 0) == (graphs > 0)
        for row in mode["batches"]:
            assert row["decode_steps"] == 4
            assert row["prefill_tokens"] == 20 * row["batch"]
            assert row["tokens_per_second"] == pytest.approx(row["batch"] / row["step_seconds"])
            assert row["share"] > 0  # above 1: so small a model stays in the caches


def test_figures_of_the_modes_make_a_table(shape, tmp_path):
    files = []
    for mode in MODES:
        files.append(tmp_path / f"{mode}.json")
        result = run_cli("bench", "--engine", "--random-weights", "--model", shape, *SHORT, "--modes",
                         mode, "--json", files[-1])
        assert result.returncode == 0, result.stderr
    table = subprocess.run([sys.executable, os.path.join(ROOT, "tests/bench/modes_table.py"), *files],
                           capture_output=True, encoding="utf-8", timeout=60)
    assert table.returncode == 0, table.stderr
    cells = {line.split(" | ")[0]: line.split(" | ") for line in table.stdout.splitlines()}
    graphs = {mode: cells[f"| `{mode}`"][3] for mode in MODES}
    # One a batch size, up to 3, in the one mode; prologue, layer and epilogue in the other.
    assert graphs == {"eager": "–", "layer": "–", "decoder": "–", "decoder_graph": "3",
                      "layer_graph": "9"}


def test_real_weights_in_the_mode_of_the_environment(bare):
    result = run_cli("bench", "--engine", "--model", bare, *SHORT, mode="layer")
    assert result.returncode == 0, result.stderr
    assert "layer " in result.stdout


@pytest.mark.parametrize("flags, status, names", [
    (["--model", "x"], 2, ["--engine", "--model"]),
    (["--stages"], 2, ["--engine", "--stages"]),
    (["--engine", "--address", "127.0.0.1:1"], 2, ["--engine", "--address"]),
    (["--address", "127.0.0.1:1"], 1, ["127.0.0.1:1"]),
    (["--write-model", "/nowhere/x"], 2, ["--config"]),
    (["--write-model", "SHAPE", "--config", "SHAPE/config.json"], 2, ["there already"]),
    (["--write-model", "/proc/x", "--config", "SHAPE/config.json"], 2, ["/proc/x"]),
    (["--engine"], 2, ["model"]),
    (["--engine", "--model", "/nowhere"], 2, ["/nowhere"]),
    (["--engine", "--model", "SHAPE"], 2, ["safetensors"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--modes", "fast"], 2, ["fast", "eager"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--batch", "0"], 2, ["batch"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--output-length", "1"], 2, ["output"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--prompt-length", "600"], 2, ["512"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--max-queue-size", "4"], 2,
     ["max-queue-size"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--kv-cache-memory", "200KiB"], 1,
     ["--batch"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--json", "/nowhere/file"], 2,
     ["/nowhere/file"]),
])
def test_what_is_refused(shape, flags, status, names):
    flags = [flag.replace("SHAPE", str(shape)) for flag in flags]
    if "--engine" in flags and "--address" not in flags:
        flags = [*flags, "--log-level", "error"]
    result = run_cli("bench", *flags, timeout=120)
    assert result.returncode == status, result.stderr
    assert len([line for line in result.stderr.splitlines() if line.strip()]) == 1, result.stderr
    for name in names:
        assert name in result.stderr
    assert result.stdout == ""


def test_a_file_of_figures_is_kept_until_there_are_others(shape, tmp_path):
    file, other = tmp_path / "figures.json", tmp_path / "new.json"
    file.write_text("{}")
    for path in (file, other):
        result = run_cli("bench", "--engine", "--random-weights", "--model", shape, *SHORT,
                         "--kv-cache-memory", "1KiB", "--json", path)
        assert result.returncode == 1, result.stderr
    assert file.read_text() == "{}" and not other.exists()


@pytest.mark.parametrize("flags", [["--json", "FILE"], ["--stages"], ["--modes", "eager"],
                                   ["--repeat", 2]])
def test_tuning_takes_no_flags_of_measuring(shape, tmp_path, flags):
    file = tmp_path / "figures.json"
    file.write_text("{}")
    flags = [file if flag == "FILE" else flag for flag in flags]
    result = run_cli("bench", "--engine", "--random-weights", "--model", shape, "--tune",
                     tmp_path / "table.inc", *flags)
    assert result.returncode == 2 and "--tune" in result.stderr and flags[0] in result.stderr
    assert file.read_text() == "{}"


def test_the_cpu_has_no_kernel_table(shape, tmp_path):
    table = tmp_path / "table.inc"
    table.write_text("// Entries.\n")
    result = run_cli("bench", "--engine", "--random-weights", "--model", shape, "--prompt-length",
                     20, "--output-length", 5, "--log-level", "error", "--tune", table)
    assert result.returncode == 2 and "kernel table" in result.stderr
    assert table.read_text() == "// Entries.\n"


def test_load_on_a_server_counts_tokens(bare, tmp_path):
    file = tmp_path / "figures.json"
    with Server(bare, "--max-batch-size", 4) as server:
        result = run_cli("bench", "--address", server.address, "--batch", "1,3", "--requests", 7,
                         "--prompt-length", 5, "--output-length", 6, "--connections", 2,
                         "--json", file)
        assert result.returncode == 0, result.stderr
        generated = server.metrics()("vllm:generation_tokens_total")
        longer = run_cli("bench", "--address", server.address, "--output-length", 600)
    figures = json.loads(file.read_text())
    assert (figures["backend"], figures["mode"]) == ("cpu", "decoder_graph")
    assert [level["concurrency"] for level in figures["levels"]] == [1, 3]
    for level in figures["levels"]:
        assert (level["requests"], level["tokens"]) == (7, 7 * 6)
        assert level["tokens_per_second"] == pytest.approx(7 * 6 / level["seconds"])
        assert 0 < level["first_token_seconds"]["p50"] <= level["seconds"]
    assert generated == 2 * 7 * 6 + (1 + 3) * 6  # each level warms up
    assert len([line for line in result.stdout.splitlines() if line.strip()]) == 6
    assert longer.returncode == 2 and "512" in longer.stderr


def test_a_written_model_is_served(shape, tmp_path):
    folder = tmp_path / "model"
    result = run_cli("bench", "--write-model", folder, "--config", shape / "config.json", "--seed", 3)
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout
    with Server(folder, "--max-batch-size", 2) as server:
        model = server.get_model()
        assert (model.has_tokenizer, model.has_chat_template) == (True, True)
        response = server.generate(prompt="Wind", max_new_tokens=5, stop={"ignore_eos": True})
        assert response.usage.prompt_tokens == len("Wind")
        assert response.completions[0].text == server.detokenize(response.completions[0].token_ids)
