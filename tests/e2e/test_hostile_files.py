"""Files that nobody should trust, given to the real binary: one clear line, exit status 2, soon, and
little memory."""
import json
import os
import shutil
import subprocess
import sys

import pytest

import hostile_files
import hostile_tokenizers  # noqa: F401  (adds its cases)
from harness import BINARY, environment

SECONDS = 5
MEMORY = 64 << 20  # beside twice the files


def size_of(path):
    """Bytes of a file, or of all files of a folder; of a link that leads nowhere, none."""
    if not os.path.isdir(path):
        return os.path.getsize(path) if os.path.isfile(path) else 0
    paths = (os.path.join(path, name) for name in os.listdir(path))
    return sum(os.path.getsize(p) for p in paths if os.path.isfile(p))


def measured(tmp_path, *command):
    """(exit status, stdout, stderr, seconds of a processor, peak memory in bytes) of a command."""
    report = tmp_path / "report.json"
    script = os.path.join(os.path.dirname(__file__), "measured.py")
    done = subprocess.run([sys.executable, "-I", "-S", script, report, *command],
                          env=environment(), text=True, capture_output=True, timeout=60, check=True,
                          encoding="utf-8")
    took = json.loads(report.read_text())
    return took["status"], done.stdout, done.stderr, took["seconds"], took["peak"]


@pytest.mark.parametrize("name", hostile_files.CASES)
def test_refused(name, tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    model = hostile_files.CASES[name](str(folder)) or str(folder)
    status, out, err, seconds, peak = measured(tmp_path, BINARY, "info", "--model", model)
    assert status == 2, (status, out, err[:1000])
    assert out == ""
    assert err.startswith("sirocco: ") and err.endswith("\n") and err[:-1].isprintable(), err
    assert str(tmp_path) in err, f"names no file: {err}"
    assert len(err) < 1000 + len(model), err[:2000]
    assert seconds < SECONDS
    size = size_of(model)
    assert peak <= 2 * size + MEMORY, f"{peak >> 20} MiB for {size >> 20} MiB of files"
    shutil.rmtree(folder)  # some are large


def test_the_model_itself_is_good(tiny, tmp_path):
    """What the cases spoil is nothing but what they say."""
    status, _, err, seconds, peak = measured(tmp_path, BINARY, "info", "--model", tiny)
    assert (status, err) == (0, "")
    assert seconds < SECONDS and peak <= 2 * size_of(tiny) + MEMORY
