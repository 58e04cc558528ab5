"""What deploy/ has for a machine without a cluster, compared with the program: the systemd unit and the
shell's completion."""
import os
import re
import shlex
import subprocess

import yaml

from harness import BINARY, MODES, ROOT, run_cli

COMMANDS = {"serve", "generate", "chat", "bench", "tokenize", "run", "score", "info", "check-config"}


def unit():
    """(section, key) -> values of the systemd unit."""
    out, section = {}, None
    with open(os.path.join(ROOT, "deploy/systemd/sirocco.service"), encoding="utf-8") as file:
        for line in file:
            line = line.strip()
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, value = line.split("=", 1)
                out.setdefault((section, key), []).append(value)
    return out


def flags(command):
    return set(re.findall(r"^ *(?:-\w,)?(--[a-z-]+)", run_cli(command, "--help").stdout,
                          re.MULTILINE))


class TestTheUnit:
    def test_its_commands_are_the_programs(self):
        for key, command in (("ExecStart", "serve"), ("ExecStartPre", "check-config")):
            [line] = unit()["Service", key]
            program, name, *args = shlex.split(line)
            assert (program, name) == ("/opt/sirocco/bin/sirocco", command)
            assert {arg for arg in args if arg.startswith("-")} <= flags(command)

    def test_its_mode(self):
        [line] = unit()["Service", "Environment"]
        env = dict(part.split("=") for part in line.split())
        assert (env["EOLE_TORCH_COMPILE"], env["EOLE_COMPILE_MODE"]) == MODES["decoder_graph"]

    def test_it_waits_for_a_drain(self, bare):
        config = yaml.safe_load(run_cli("check-config", "--model", bare).stdout)
        drain = int(config["drain_timeout"].removesuffix("s"))
        after = 2 + 5  # the last writes, the last step
        assert int(unit()["Service", "TimeoutStopSec"][0]) > drain + after

    def test_what_will_not_get_better_is_not_started_again(self, tmp_path):
        (tmp_path / "sirocco.yaml").write_text("model: /nowhere\n")
        wrong = run_cli("serve", "--config", tmp_path / "sirocco.yaml")
        assert [str(wrong.returncode)] == unit()["Service", "RestartPreventExitStatus"]


def complete(*words):
    """What the shell offers for the last word."""
    script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sirocco; ' \
             'printf "%s\\n" "${COMPREPLY[@]}"'
    result = subprocess.run(
        ["bash", "-c", script, "bash", os.path.join(ROOT, "deploy/completion/sirocco.bash"),
         BINARY, *words], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


class TestCompletion:
    def test_commands(self):
        assert complete("") == COMMANDS
        assert complete("ch") == {"chat", "check-config"}

    def test_flags_of_each_command(self):
        for command in COMMANDS:
            assert complete(command, "--") == flags(command)
        assert complete("serve", "--max-b") == {"--max-batch-size"}
        assert {"--help", "--version"} <= complete("--")

    def test_files(self, tmp_path):
        (tmp_path / "model.gguf").touch()
        assert complete("serve", "--model", f"{tmp_path}/mod") == {f"{tmp_path}/model.gguf"}
