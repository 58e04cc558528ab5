"""What deploy/ has for a machine without a cluster, compared with the program: the systemd unit, and the
completion of each shell, in that shell."""
import os
import re
import shlex
import subprocess

import pytest
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
    return set(re.findall(r"^  (?:-\w,)?(--[a-z-]+)", run_cli(command, "--help").stdout,
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


COMPLETION = os.path.join(ROOT, "deploy/completion")

BASH = """
source "$1/sirocco.bash"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_sirocco
printf '%s\\n' "${COMPREPLY[@]}"
"""

FISH = """
source $argv[1]/sirocco.fish
complete -C "$argv[2..]"
"""

# Presses Tab in an interactive shell, in whose completion what is offered passes through `compadd`.
ZSH_SETUP = """
PROMPT= RPROMPT= FPATH="$1:$FPATH" OFFERED="$2"
setopt no_beep
autoload -U compinit
compinit -D -u
compadd() {
  local -a offered
  # With -O, -A or -D it only computes.
  if [[ -z ${argv[(r)-[OAD]]} ]]; then
    builtin compadd -A offered "$@"
    print -rl -- $offered >>$OFFERED
  fi
  builtin compadd "$@"
}
over() { print over >>$OFFERED }
comppostfuncs=(over)
"""
ZSH = """
folder=$1 scratch=$2
shift 2
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "source $scratch/setup $folder $scratch/offered"
zpty -w -n shell "$*"$'\\t'
for (( i = 0; i < 600; i++ )); do
  [[ -e $scratch/offered && $(tail -n 1 $scratch/offered) == over ]] && break
  zpty -r -t shell text
  sleep 0.05
done
zpty -d shell
sed '$d' $scratch/offered
"""


@pytest.fixture(params=["bash", "fish", "zsh"])
def complete(request, tmp_path):
    """What a shell offers for the last of some words."""
    shell = request.param

    def offered(*words):
        if shell == "bash":
            command = ["bash", "-c", BASH, "bash", COMPLETION]
        elif shell == "fish":
            command = ["fish", "--no-config", "-c", FISH, COMPLETION]
        else:
            (tmp_path / "setup").write_text(ZSH_SETUP)
            (tmp_path / "offered").unlink(missing_ok=True)
            command = ["zsh", "-f", "-c", ZSH, "zsh", COMPLETION, tmp_path]
        result = subprocess.run([*command, BINARY, *words], capture_output=True, text=True,
                                timeout=60, env={**os.environ, "HOME": str(tmp_path), "TERM": "dumb"})
        assert result.returncode == 0, result.stderr
        # fish adds what each is.
        return {line.split("\t")[0] for line in result.stdout.splitlines() if line}
    return offered


class TestCompletion:
    def test_commands(self, complete):
        assert complete("") == COMMANDS
        assert complete("ch") == {"chat", "check-config"}

    def test_flags_of_each_command(self, complete):
        for command in COMMANDS:
            assert complete(command, "--") == flags(command), command
        assert complete("serve", "--max-b") == {"--max-batch-size"}
        assert complete("--") == {"--help", "--version"}

    def test_flags_after_others(self, complete):
        assert complete("info", "--config", "x", "--pl") == {"--plan"}

    def test_files(self, complete, tmp_path):
        (tmp_path / "model.gguf").touch()
        [file] = complete("serve", "--model", f"{tmp_path}/mod")
        assert os.path.basename(file) == "model.gguf"

    def test_what_each_is(self, tmp_path):
        """fish shows it; zsh too, from the same lines."""
        out = subprocess.run(
            ["fish", "--no-config", "-c", FISH, COMPLETION, BINARY, "chat", "--addr"],
            capture_output=True, text=True, timeout=60,
            env={**os.environ, "HOME": str(tmp_path)}).stdout
        assert out.startswith("--address\tthe server's HOST:PORT"), out
