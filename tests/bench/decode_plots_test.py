#!/usr/bin/env python3
"""That the picture in results/ is what decode_plots.py makes of the figures beside it; what it refuses."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

FOLDER = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(FOLDER, "results")
MODES = ("decoder_graph", "layer_graph", "decoder", "layer", "eager")
FIGURES = [os.path.join(RESULTS, name) for name in (
    *(f"h200-gemma3-1b-{mode}.json" for mode in MODES), "h200-llama3.2-1b.json",
    "h200-llama3.1-8b.json")]
PEERS = os.path.join(RESULTS, "peers.json")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class DecodePlots(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.output = os.path.join(self.folder.name, "out.svg")

    def draw(self, peers, *figures):
        return subprocess.run(
            [sys.executable, os.path.join(FOLDER, "decode_plots.py"), peers, self.output, *figures],
            text=True, capture_output=True, check=False)

    def written(self, name, value):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(value, file)
        return path

    def picture(self):
        with open(self.output, encoding="utf-8") as file:
            return file.read()

    def test_the_picture_is_of_the_figures(self):
        done = self.draw(PEERS, *FIGURES)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(os.path.join(RESULTS, "h200-decode.svg"), encoding="utf-8") as file:
            self.assertEqual(self.picture(), file.read(), "draw it anew")

    def test_every_line_is_there(self):
        self.assertEqual(self.draw(PEERS, *FIGURES).returncode, 0)
        root = xml.etree.ElementTree.fromstring(self.picture())
        lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
        # Of the first model five modes, of the others one, each with two peers, in two panels.
        self.assertEqual(len(lines), 2 * ((5 + 2) + (1 + 2) + (1 + 2)))
        points = [len(line.get("points").split()) for line in lines[:7]]
        self.assertEqual(points, [5] * 6 + [1])

    def test_a_peers_share_is_of_our_bytes(self):
        figures = load(FIGURES[-1])
        row = figures["modes"][0]["batches"][0]
        peers = load(PEERS)
        # As fast as we were: then both lie in one place.
        peers["engines"] = [{"engine": "Twin", "version": "1", "tokens_per_second": {
            "llama3.1-8b": {str(row["batch"]): row["tokens_per_second"]}}}]
        self.assertEqual(self.draw(self.written("peers.json", peers), FIGURES[-1]).returncode, 0)
        lines = xml.etree.ElementTree.fromstring(self.picture()).findall(
            ".//{http://www.w3.org/2000/svg}polyline")
        for ours, twins in ((lines[0], lines[1]), (lines[2], lines[3])):
            self.assertEqual(ours.get("points").split()[0], twins.get("points"))

    def test_refusals(self):
        other = load(FIGURES[-1])
        other["device"] = "Another"
        longer = load(FIGURES[-2])
        longer["output_length"] = 1
        nameless = load(PEERS)
        del nameless["engines"][0]["version"]
        for peers, figures, why in (
                (PEERS, [self.written("other.json", other)], "was measured on Another"),
                (PEERS, [FIGURES[-1], self.written("longer.json", longer)], "different output_length"),
                (PEERS, [os.path.join(self.folder.name, "none.json")], "none.json"),
                (self.written("nameless.json", nameless), [FIGURES[-1]], "without 'version'")):
            done = self.draw(peers, *figures)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)
            self.assertFalse(os.path.exists(self.output))


if __name__ == "__main__":
    unittest.main()
