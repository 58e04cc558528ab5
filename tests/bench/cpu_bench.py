#!/usr/bin/env python3
"""The CPU backend on two cores in one run, beside what the machine could: the default model's
decode and prefill by type, matrix products beside oneDNN's, time to ready, and the same workloads
in llama.cpp on the same files. Prints Markdown.

Before: `deploy/install --bench`, and
`bazel build --config=opt //server:sirocco //tests/bench:kernels_bench`.
llama.cpp is built by build_llama_bench.sh on the first run; nothing of it enters the repository.

usage: tests/bench/cpu_bench.py [--skip-llama] [--sirocco FILE] [--kernels-bench FILE]
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, "tests", "bench")
CORES = "0,1"
THREADS = 2
ROUNDS = 5
PROMPT, OUTPUT = 512, 64
BATCHES = [1, 4, 16]
BATCH_PROMPT = 64  # of each sequence where several decode together
VOCABULARY, HIDDEN = 49152, 576  # of the default model
SHAPES = [(512, 1536, HIDDEN), (512, HIDDEN, 1536), (512, HIDDEN, HIDDEN),
          (512, VOCABULARY, HIDDEN)]


def run(command, **more):
    """The command's standard output, on the two cores."""
    done = subprocess.run(["taskset", "-c", CORES, *map(str, command)], capture_output=True,
                          text=True, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed ({done.returncode}):\n"
                 f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def engine(sirocco, model, dtype, batches, prompt):
    """`sirocco bench --engine` in the mode that deploy/ sets."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        run([sirocco, "bench", "--engine", "--backend", "cpu", "--model", model, "--dtype", dtype,
             "--modes", "decoder_graph", "--batch", ",".join(map(str, batches)),
             "--prompt-length", prompt, "--output-length", OUTPUT, "--threads", THREADS,
             "--json", file.name])
        return json.load(file)


def ours(sirocco, model, dtype):
    """The figures of one file and type. What memory gives changes from minute to minute where
    others share it: one sequence's figures are medians of several runs, and the share is that of
    each run in what it read just before."""
    runs = [engine(sirocco, model, dtype, [1], PROMPT) for _ in range(ROUNDS)]
    many = engine(sirocco, model, dtype, BATCHES[1:], BATCH_PROMPT)
    first = [one["modes"][0]["batches"][0] for one in runs]
    streams = [one["measured_stream"] for one in runs]
    rates = {b["batch"]: b["tokens_per_second"] for b in many["modes"][0]["batches"]}

    def median(key):
        return statistics.median(b[key] for b in first)

    return {"dtype": runs[0]["dtype"], "streams": streams,
            "load": statistics.median(one["load_seconds"] for one in runs),
            "bytes": median("bytes_per_second"),
            "share": statistics.median(b["bytes_per_second"] / stream
                                       for b, stream in zip(first, streams)),
            "rates": {1: median("tokens_per_second"), **rates},
            "prefill": median("prefill_tokens_per_second"),
            # Of the products alone; the head sees one row of a prompt.
            "flops": 2 * (runs[0]["parameters"] - VOCABULARY * HIDDEN)}


def time_to_ready(sirocco, model):
    """Seconds from the process's start to its line on stdout, the file in the page cache."""
    taken = []
    for _ in range(3):
        begin = time.monotonic()
        server = subprocess.Popen(
            ["taskset", "-c", CORES, sirocco, "serve", "--model", model, "--backend", "cpu",
             "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=dict(os.environ, EOLE_TORCH_COMPILE="1", EOLE_COMPILE_MODE="0"))
        if not server.stdout.readline().startswith("ready "):
            sys.exit("sirocco serve did not come up")
        taken.append(time.monotonic() - begin)
        server.terminate()
        server.wait()
    return statistics.median(taken)


def our_products(kernels_bench):
    """(type's name, shape) -> GFLOP/s"""
    text = run([kernels_bench, "--benchmark_filter=BM_MatMul/.*/rows:512", "--benchmark_format=json",
                "--benchmark_repetitions=3", "--benchmark_report_aggregates_only=true"])
    out = {}
    for line in json.loads(text)["benchmarks"]:
        if line.get("aggregate_name") != "median":
            continue
        # BM_MatMul/float32/rows:512/outputs:1536/inputs:576/real_time_median
        _, dtype, *parts = line["name"].split("/")
        part = dict(p.split(":") for p in parts if ":" in p)
        shape = (int(part["rows"]), int(part["outputs"]), int(part["inputs"]))
        out[dtype, shape] = line["GFLOP/s"]
    return out


def run_built(source, *flags, arguments):
    """Builds a program of this folder and runs it: its standard output."""
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "program")
        run(["g++", "-std=c++20", "-O2", os.path.join(HERE, source), *flags, "-o", program])
        return run([program, *arguments], env=dict(os.environ, OMP_NUM_THREADS=str(THREADS)))


def best_of(pairs):
    """Of several pairs of tables (or None in place of one): the largest of each cell."""
    return [one[0] and {key: max(table[key] for table in one) for key in one[0]}
            for one in zip(*pairs)]


def onednn_products():
    """shape -> GFLOP/s, or None where oneDNN is not installed."""
    if not os.path.exists("/usr/include/oneapi/dnnl/dnnl.hpp"):
        return None
    text = run_built("onednn_bench.cc", "-ldnnl", arguments=["x".join(map(str, s)) for s in SHAPES])
    lines = dict(line.split() for line in text.splitlines())
    return {shape: float(lines["x".join(map(str, shape))]) for shape in SHAPES}


def llama(folder, model):
    """The same workloads, by llama-bench and, of several sequences, llama-batched-bench."""
    bench = json.loads(run([os.path.join(folder, "llama-bench"), "-m", model, "-t", THREADS, "-p",
                            PROMPT, "-n", OUTPUT, "-d", 0, "-r", 5, "-o", "json"]))
    prefill = next(b["avg_ts"] for b in bench if b["n_prompt"] == PROMPT)
    decode = run([os.path.join(folder, "llama-bench"), "-m", model, "-t", THREADS, "-p", 0, "-n",
                  OUTPUT, "-d", PROMPT, "-r", 5, "-o", "json"])
    rates = {1: json.loads(decode)[0]["avg_ts"]}
    text = run([os.path.join(folder, "llama-batched-bench"), "-m", model, "-t", THREADS, "-c",
                max(BATCHES) * (BATCH_PROMPT + OUTPUT), "-npp", BATCH_PROMPT, "-ntg", OUTPUT,
                "-npl", ",".join(map(str, BATCHES[1:]))])
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if len(cells) >= 8 and re.fullmatch(r"\d+", cells[0]):
            rates[int(cells[2])] = float(cells[7])  # PP, TG, B, N_KV, T_PP, S_PP, T_TG, S_TG
    return {"prefill": prefill, "rates": rates}


def llama_files(model):
    """The folder of llama.cpp's programs, and the model in BF16."""
    program = subprocess.run([os.path.join(HERE, "build_llama_bench.sh")], check=True, text=True,
                             stdout=subprocess.PIPE).stdout.strip()
    folder = os.path.dirname(program)
    bf16 = os.path.splitext(model)[0] + ".BF16.gguf"
    if not os.path.exists(bf16):
        run([os.path.join(folder, "llama-quantize"), "--allow-requantize", model, bf16 + ".part",
             "BF16"])
        os.rename(bf16 + ".part", bf16)
    return folder, bf16


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next(line.split(": ")[1].strip() for line in file if line.startswith("model name"))


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--skip-llama", action="store_true")
    parser.add_argument("--sirocco", default=os.path.join(ROOT, ".build/bin/server/sirocco"))
    parser.add_argument("--kernels-bench",
                        default=os.path.join(ROOT, ".build/bin/tests/bench/kernels_bench"))
    args = parser.parse_args()
    model = run([os.path.join(ROOT, "deploy", "model")]).strip()
    runs = {"auto": ours(args.sirocco, model, "auto"),
            "bfloat16": ours(args.sirocco, model, "bfloat16"),
            "float32": ours(args.sirocco, model, "float32")}
    streams = sorted(s for r in runs.values() for s in r["streams"])
    peak = float(run_built("fma_peak.cc", "-pthread", arguments=[THREADS]))
    print(f"{processor()}, {THREADS} threads; memory is read at {streams[0] / 1e9:.1f} to "
          f"{streams[-1] / 1e9:.1f} GB/s (the better of two readers, 1 GiB, before each run; median "
          f"{statistics.median(streams) / 1e9:.1f}); float32 multiply-adds reach {peak:.0f} GFLOP/s. "
          f"`{os.path.basename(model)}`, time to ready {time_to_ready(args.sirocco, model):.2f} s "
          "from the page cache.\n")

    rows = [[f"Sirocco, {r['dtype']}", f"{r['bytes'] / 1e9:.1f}", f"{r['share']:.0%}",
             *(f"{r['rates'][b]:.1f}" for b in BATCHES), f"{r['prefill']:.0f}",
             f"{r['flops'] * r['prefill'] * 1e-9 / peak:.0%}", f"{r['load']:.2f}"]
            for r in runs.values()]
    if not args.skip_llama:
        folder, bf16 = llama_files(model)
        for name, file in (("Q4_1", model), ("BF16", bf16)):
            r = llama(folder, file)
            rows.append([f"llama.cpp, {name}", "", "", *(f"{r['rates'][b]:.1f}" for b in BATCHES),
                         f"{r['prefill']:.0f}", "", ""])
    table(["", "decode GB/s, batch 1", "share"] + [f"tok/s, batch {b}" for b in BATCHES]
          + [f"prefill of {PROMPT}, tok/s", "its products / peak", "load s"], rows)

    # In turns, the best of each: what others on the machine take only slows.
    product, onednn = best_of([(our_products(args.kernels_bench), onednn_products())
                               for _ in range(3)])
    types = ["float32", "bfloat16", "Q8_0", "Q4_0", "Q4_1"]
    rows = []
    for shape in SHAPES:
        best = onednn[shape] if onednn else None
        cells = [f"{product[t, shape]:.1f}" for t in types]
        share = f"{product['bfloat16', shape] / best:.0%}" if best else ""
        rows.append(["x".join(map(str, shape)), *cells, f"{best:.1f}" if best else "not installed",
                     share])
    print("GFLOP/s of products, rows x outputs x inputs:\n")
    table(["shape", *types, "oneDNN float32", "bfloat16 / oneDNN"], rows)


if __name__ == "__main__":
    main()
