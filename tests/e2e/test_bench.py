"""sirocco bench: what it measures, writes and refuses."""
import collections
import html.parser
import json
import os
import subprocess
import sys
import threading

import pytest

from harness import BINARY, GOLDENS, MODES, TIMEOUT, Server, environment, run_cli
from stubs import ROOT

DRAWN_TO = 8  # tokens of an output that are asked for while connections warm up

SHORT = ["--prompt-length", 20, "--output-length", 5, "--repeat", 2, "--batch", "1,3"]


class Page(html.parser.HTMLParser):
    """What stands in a page: its elements, and whether each that was opened was closed."""
    VOID = {"meta", "br"}

    def __init__(self, file):
        super().__init__()
        self.open, self.count, self.attributes = [], collections.Counter(), set()
        self.feed(file.read_text())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.count[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] += 1
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_whole_page(file, plots):
    page = Page(file)
    assert page.open == [] and page.count["svg"] == plots
    # It fetches and runs nothing.
    assert not set(page.count) & {"script", "link", "img", "iframe", "object", "use"}
    assert not page.attributes & {"src", "href", "srcset", "onload"}
    assert "url(" not in file.read_text() and "@import" not in file.read_text()


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    """A folder with nothing but a config.json."""
    folder = tmp_path_factory.mktemp("shape")
    with open(os.path.join(GOLDENS, "llama_tied/config.json"), "rb") as config:
        (folder / "config.json").write_bytes(config.read())
    return folder


def test_random_weights_from_a_bare_configuration(shape, tmp_path):
    file, page = tmp_path / "figures.json", tmp_path / "page.html"
    result = run_cli("bench", "--engine", "--random-weights", "--model", shape, *SHORT, "--modes",
                     "eager,decoder_graph", "--stages", "--json", file, "--html", page)
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
    assert_whole_page(page, plots=4)


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
    (["--engine", "--model", "SHAPE", "--random-weights", "--prompt-length", "uniform:2:9"], 2,
     ["--prompt-length", "--engine", "uniform:2:9"]),
    (["--engine", "--rate", "5"], 2, ["--engine", "--rate"]),
    (["--engine", "--model", "SHAPE", "--random-weights", "--batch", "513"], 2, ["--batch", "512"]),
    (["--rate", "0"], 2, ["rate"]),
    (["--rate", "5", "--batch", "1"], 2, ["--rate", "--batch"]),
    (["--rate", "5", "--requests", "9"], 2, ["--rate", "--requests"]),
    (["--rate", "5", "--duration", "0s"], 2, ["--duration"]),
    (["--duration", "5"], 2, ["--duration", "'5'"]),
    (["--requests", "5", "--duration", "5s"], 2, ["--requests", "--duration"]),
    (["--goal", "ttft"], 2, ["--goal", "'ttft'", "ttft, itl, tpot or e2e"]),
    (["--goal", "ttft_p99=1s", "--rate", "1,2"], 2, ["--goal", "--rate"]),
    (["--prompt-length", "normal:5"], 2, ["--prompt-length", "'normal:5'", "uniform:"]),
    (["--output-length", "file:/nowhere/x"], 2, ["--output-length", "/nowhere/x"]),
    (["--html", "/nowhere/file"], 2, ["/nowhere/file"]),
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


@pytest.mark.parametrize("flags", [["--json", "FILE"], ["--html", "FILE"], ["--stages"],
                                   ["--modes", "eager"], ["--repeat", 2]])
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


def test_an_open_loop_sends_by_the_clock(bare, tmp_path):
    file, page, lengths = (tmp_path / name for name in ("figures.json", "page.html", "lengths"))
    lengths.write_text("3\n6\n9\n")
    with Server(bare, "--max-batch-size", 8) as server:
        result = run_cli("bench", "--address", server.address, "--rate", "30,60", "--duration", "1s",
                         "--warm-up", "300ms", "--prompt-length", "uniform:2:9", "--output-length",
                         f"file:{lengths}", "--connections", 12, "--json", file, "--html", page)
        assert result.returncode == 0, result.stderr
        generated = server.metrics()("vllm:generation_tokens_total")
    figures = json.loads(file.read_text())
    assert (figures["loop"], figures["prompt_length"]) == ("open", "uniform:2:9")
    assert [level["rate"] for level in figures["levels"]] == [30, 60]
    sent = 0
    for level in figures["levels"]:
        timeline = level["timeline"]
        sent += sum(timeline["tokens"])
        assert sum(timeline["arrivals"]) == sum(timeline["ends"]) > level["requests"]
        assert (level["warm_up_seconds"], level["seconds"], level["failed"]) == (0.3, 1, {})
        # Poisson: within four deviations.
        assert abs(level["requests"] - level["rate"]) < 4 * level["rate"] ** 0.5
        assert level["tokens_per_second"] == level["tokens"]
        first, total = level["first_token_seconds"], level["total_seconds"]
        assert first["samples"] == total["samples"] == level["requests"]
        assert 0 < first["p50"] <= first["p90"] <= first["p99"] <= first["max"] <= total["max"]
        assert level["late_seconds"]["p50"] < first["p50"]
    # Connections warm up once a level, in the longest outputs that warming takes.
    assert generated == sent + 2 * 12 * DRAWN_TO
    assert_whole_page(page, plots=4 + 2 * 3)
    assert len([line for line in result.stdout.splitlines() if line.strip()]) == 6


def test_the_highest_rate_that_keeps_a_goal(bare, tmp_path):
    file = tmp_path / "figures.json"
    with Server(bare, "--max-batch-size", 1) as server:
        result = run_cli("bench", "--address", server.address, "--goal", "e2e_p90=300ms", "--rate", 16,
                         "--duration", "300ms", "--warm-up", "0s", "--prompt-length", 4,
                         "--output-length", 100, "--json", file)
        assert result.returncode == 0, result.stderr
        none = run_cli("bench", "--address", server.address, "--goal", "e2e_p50=1ms", "--rate", 256,
                       "--duration", "200ms", "--warm-up", "0s", "--prompt-length", 4,
                       "--output-length", 100)
    figures = json.loads(file.read_text())
    levels, goal = figures["levels"], figures["goal"]
    assert levels[0]["rate"] == 16
    for level in levels:
        assert level["seconds"] >= max(0.3, 10 / level["rate"]) - 1e-9
        if not level["failed"]:
            assert level["keeps_goal"] == (level["total_seconds"]["p90"] <= 0.3)
    kept = [level["rate"] for level in levels if level["keeps_goal"]]
    missed = [level["rate"] for level in levels if not level["keeps_goal"]]
    assert kept and missed, result.stdout  # it has one slot: some rate is too high
    assert (goal["highest_kept_rate"], goal["lowest_missed_rate"]) == (max(kept), min(missed))
    assert "requests/s keep e2e_p90=300ms" in result.stdout
    # 100 tokens in a millisecond.
    assert none.returncode == 0, none.stderr
    assert "no rate down to 16/s keeps e2e_p50=1ms" in none.stdout


def test_what_an_overloaded_server_refuses_is_counted(bare, tmp_path):
    file = tmp_path / "figures.json"
    flags = ["--prompt-length", 4, "--output-length", 400, "--json", file]
    with Server(bare, "--max-batch-size", 1, "--max-queue-size", 1) as server:
        result = run_cli("bench", "--address", server.address, "--rate", 400, "--duration", "300ms",
                         "--warm-up", "0s", "--connections", 1, *flags)
        assert result.returncode == 0, result.stderr
        closed = run_cli("bench", "--address", server.address, "--batch", 8, *flags)
    [level] = json.loads(file.read_text())["levels"]
    assert level["requests"] > 0 and level["failed"]["RESOURCE_EXHAUSTED"] > 0
    assert sum(level["timeline"]["ends"]) == level["requests"] + sum(level["failed"].values())
    assert "the queue is full" in level["first_failure"]
    assert "the first that failed at 400/s: " in result.stdout
    # A closed loop would only ask again.
    assert closed.returncode == 1 and "queue" in closed.stderr


def established(address):
    """Connections to a server's address, as its side has them."""
    port = int(address.rpartition(":")[2])
    rows = []
    for table in ("tcp", "tcp6"):  # gRPC listens on sockets of both families
        with open(f"/proc/net/{table}", encoding="ascii") as lines:
            rows += [line.split() for line in lines][1:]
    return sum(int(row[1].rpartition(":")[2], 16) == port and row[3] == "01" for row in rows)


def test_progress_on_a_terminal_over_many_connections(bare):
    connections = 0
    with Server(bare, "--max-batch-size", 4) as server:
        ours, its = os.openpty()
        process = subprocess.Popen(
            [BINARY, "bench", "--address", server.address, "--rate", "40", "--duration", "1s",
             "--warm-up", "500ms", "--prompt-length", "4", "--output-length", "20",
             "--connections", "30"],
            stdout=subprocess.PIPE, stderr=its, env=environment())
        os.close(its)
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
                connections = max(connections, established(server.address))
        except OSError:  # how a terminal whose other side is closed ends
            pass
        output = process.communicate()[0].decode()
        timer.cancel()
        os.close(ours)
    assert process.returncode == 0 and connections >= 30
    frames = shown.decode().split("\r")
    assert any("warming up" in frame for frame in frames)
    assert any("40/s" in frame and "tok/s" in frame and "%" in frame for frame in frames)
    # A terminal that does not say how wide it is: 80 columns, one of them free.
    assert all(len(frame.split("\033")[0].strip()) < 80 for frame in frames)
    assert "first token, ms" in output and "\r" not in output


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
