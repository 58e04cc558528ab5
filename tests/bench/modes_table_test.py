#!/usr/bin/env python3
"""What modes_table.py makes of figures, and which it refuses."""
import copy
import json
import os
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "modes_table.py")


def mode(name, step_seconds, graphs=0):
    return {"mode": name, "pack_seconds": 0.25, "prepare_seconds": 0.5, "graphs": graphs,
            "capture_seconds": 1.234 if graphs else 0, "graph_bytes": graphs << 20,
            "batches": [{"batch": batch, "step_seconds": step_seconds,
                         "tokens_per_second": batch / step_seconds} for batch in (1, 4)]}


FIGURES = {"model": "models/tiny", "backend": "cuda", "device": "A GPU", "dtype": "bfloat16",
           "kv_cache_dtype": "float16", "prompt_length": 20, "output_length": 256, "repeat": 5,
           "stream": 3.1e12,
           "modes": [mode("eager", 2e-3), mode("layer_graph", 8e-4, 12),
                     mode("decoder_graph", 5e-4, 4)]}


class ModesTable(unittest.TestCase):
    def run_on(self, *figures, flags=()):
        """The finished process, on files of these figures or texts."""
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for some in figures:
                paths.append(os.path.join(folder, f"{len(paths)}.json"))
                with open(paths[-1], "w", encoding="utf-8") as file:
                    file.write(some if isinstance(some, str) else json.dumps(some))
            return subprocess.run([sys.executable, SCRIPT, *paths, *flags], text=True,
                                  encoding="utf-8", capture_output=True, check=False)

    def lines_of(self, *figures, flags=()):
        result = self.run_on(*figures, flags=flags)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.splitlines()

    def assert_refused(self, *figures, flags=(), word):
        result = self.run_on(*figures, flags=flags)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn(word, result.stderr)

    def test_a_row_a_mode_the_most_compiled_first(self):
        lines = self.lines_of(FIGURES)
        for word in ("models/tiny on A GPU (cuda)", "bfloat16", "KV cache float16",
                     "prompts of 20 tokens", "outputs of 256", "medians of 5", "3,100 GB/s"):
            self.assertIn(word, lines[0])
        self.assertEqual(lines[4:7], [
            "| `decoder_graph` | (0.75 s) | (1.23 s) | 4 | (4 MiB) | 500 µs, 2,000 (4.00×) "
            "| 500 µs, 8,000 (4.00×) |",
            "| `layer_graph` | (0.75 s) | (1.23 s) | 12 | (12 MiB) | 800 µs, 1,250 (2.50×) "
            "| 800 µs, 5,000 (2.50×) |",
            "| `eager` | 0.75 s | – | – | – | 2,000 µs, 500 | 2,000 µs, 2,000 |"])
        self.assertEqual({line.count("|") for line in lines[2:7]}, {8})
        self.assertTrue(lines[8].startswith("In parentheses: behind another mode"))

    def test_only_the_batches_asked_for(self):
        lines = self.lines_of(FIGURES, flags=["--batches", "4"])
        self.assertIn("batch 4", lines[2])
        self.assertNotIn("batch 1", lines[2])
        self.assert_refused(FIGURES, flags=["--batches", "4,5"], word="measured: 1, 4")

    def test_files_of_one_model_join(self):
        one, other = ({**FIGURES, "modes": [FIGURES["modes"][0]]},
                      {**FIGURES, "modes": [mode("decoder_graph", 1e-3, 4)], "stream": 3.2e12})
        lines = self.lines_of(one, other)
        self.assertEqual(len(lines), 6)  # nothing in parentheses
        self.assertIn("| 0.75 s | 1.23 s | 4 | 4 MiB |", lines[4])
        self.assertIn("3,100 to 3,200 GB/s", lines[0])
        self.assert_refused(FIGURES, FIGURES, word="twice")

    def test_files_of_several_models_are_several_tables(self):
        lines = self.lines_of(FIGURES, {**FIGURES, "model": "models/large"})
        self.assertEqual(len(lines), 19)
        self.assertTrue(lines[10].startswith("models/large on A GPU"))

    def test_without_eager_nothing_is_beside_it(self):
        lines = self.lines_of({**FIGURES, "modes": FIGURES["modes"][1:]})
        self.assertNotIn("×", "".join(lines))

    def test_what_is_no_figures(self):
        self.assert_refused("{", word="0.json")
        self.assert_refused("[]", word="no 'model'")
        self.assert_refused({"model": "x"}, word="no 'backend'")
        self.assert_refused({**FIGURES, "modes": []}, word="no batch size")
        self.assert_refused({**FIGURES, "modes": [mode("fast", 1)]}, word="'fast'")
        apart = copy.deepcopy(FIGURES)
        apart["modes"][0]["batches"] = apart["modes"][0]["batches"][:1]
        apart["modes"][1]["batches"] = apart["modes"][1]["batches"][1:]
        self.assert_refused(apart, word="no batch size")


if __name__ == "__main__":
    unittest.main()
