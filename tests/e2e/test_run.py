"""`sirocco run` over files: order, throughput, bad lines, interruption."""
import json
import re
import signal
import subprocess

import pytest

from harness import BINARY, TIMEOUT, environment, eventually, run_cli

LINES = 120


def request(number):
    """Of very different lengths; the id tells whose answer it is."""
    return {"prompt": f"The wind {number}", "requestId": f"r{number}",
            "maxNewTokens": 200 if number % 40 == 0 else 1 + number % 7,
            "stop": {"ignoreEos": True}}


def write_requests(path, numbers):
    path.write_text("".join(json.dumps(request(i)) + "\n" for i in numbers), encoding="utf-8")


def answers(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(lines):
    return [line["completions"][0]["text"] for line in lines]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The requests, and the run of them all that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_requests(folder / "requests", range(LINES))
    result = run_cli("run", "--model", tiny, "--max-batch-size", 8, folder / "requests",
                     "--output", folder / "answers")
    assert result.returncode == 0, result.stderr
    return folder / "requests", answers(folder / "answers"), result


def start(tiny, *args):
    return subprocess.Popen([BINARY, "run", "--model", tiny, "--max-batch-size", "8",
                             *map(str, args)], env=environment(), text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_keeps_the_order(whole):
    _, lines, _ = whole
    assert [line["requestId"] for line in lines] == [f"r{i}" for i in range(LINES)]
    for i, line in enumerate(lines):
        assert line["usage"]["completionTokens"] == request(i)["maxNewTokens"]


def test_reports_throughput_with_full_batches(whole):
    _, lines, result = whole
    assert result.stdout == ""
    report = result.stderr.splitlines()[-1]
    tokens = sum(line["usage"]["completionTokens"] for line in lines)
    prompts = sum(line["usage"]["promptTokens"] for line in lines)
    assert f"answered {LINES} lines in " in report
    assert f" {prompts} prompt tokens " in report and f" {tokens} generated " in report
    # Some 110 short answers fill the batch beside a long one; only at the end long ones are alone.
    mean = float(re.search(r"batches of ([0-9.]+), at most 8", report)[1])
    assert 1 < mean <= 8


def test_full_batches(tiny, tmp_path):
    """A row is empty only while the next prompt is computed, and at the end."""
    path = tmp_path / "requests"
    lines = [{**request(i), "maxNewTokens": 200 if i == 0 else 40} for i in range(LINES)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = run_cli("run", "--model", tiny, "--max-batch-size", 8, path)
    assert result.returncode == 0, result.stderr
    assert float(re.search(r"batches of ([0-9.]+), at most 8", result.stderr)[1]) > 6


def test_bad_lines_survive(tiny, tmp_path):
    path = tmp_path / "requests"
    lines = []
    for i in range(20):
        lines.append("nonsense" if i % 5 == 0 else json.dumps(request(i)))
    path.write_text("\n".join(lines), encoding="utf-8")  # without a last end of line
    result = run_cli("run", "--model", tiny, path, "--output", tmp_path / "answers")
    assert result.returncode == 1
    assert "4 failed" in result.stderr
    for i, line in enumerate(answers(tmp_path / "answers")):
        assert ("error" in line) == (i % 5 == 0)
        assert "error" in line or line["requestId"] == f"r{i}"


def test_resumes_after_a_crash(tiny, whole, tmp_path):
    requests, expected, _ = whole
    output = tmp_path / "answers"
    with start(tiny, "--output", output) as process:
        for line in requests.read_text(encoding="utf-8").splitlines()[:60]:
            process.stdin.write(line + "\n")
        process.stdin.flush()
        eventually(lambda: output.exists() and output.read_text(encoding="utf-8").count("\n") > 20,
                   timeout=TIMEOUT, what="20 answers")
        process.kill()
        process.wait(TIMEOUT)
    with output.open("a", encoding="utf-8") as out:
        out.write('{"requestId": "r')  # as a crash in the midst of a line leaves it
    before = output.read_text(encoding="utf-8").count("\n")
    result = run_cli("run", "--model", tiny, "--max-batch-size", 8, requests, "--output", output,
                     "--resume")
    assert result.returncode == 0, result.stderr
    assert f"answered {LINES - before} lines" in result.stderr
    assert f"after {before} before" in result.stderr
    assert texts(answers(output)) == texts(expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_resumes(tiny, whole, tmp_path, number):
    requests, expected, _ = whole
    output = tmp_path / "answers"
    with start(tiny, "--output", output) as process:
        for line in requests.read_text(encoding="utf-8").splitlines()[:60]:
            process.stdin.write(line + "\n")
        process.stdin.flush()
        eventually(lambda: output.exists() and output.read_text(encoding="utf-8"),
                   timeout=TIMEOUT, what="an answer")
        # The input is still open: without the signal it would wait for more.
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 128 + number
    assert output.read_text(encoding="utf-8").endswith("\n")
    result = run_cli("run", "--model", tiny, "--max-batch-size", 8, requests, "--output", output,
                     "--resume")
    assert result.returncode == 0, result.stderr
    assert texts(answers(output)) == texts(expected)


def test_resuming_what_is_done_does_nothing(tiny, tmp_path):
    write_requests(tmp_path / "requests", range(1, 4))
    command = ("run", "--model", tiny, tmp_path / "requests", "--output", tmp_path / "answers")
    assert run_cli(*command).returncode == 0
    done = (tmp_path / "answers").read_bytes()
    result = run_cli(*command, "--resume")
    assert result.returncode == 0 and "answered 0 lines" in result.stderr
    again = run_cli(*command)
    assert again.returncode == 2 and "--resume" in again.stderr
    write_requests(tmp_path / "requests", range(1, 3))
    other = run_cli(*command, "--resume")
    assert other.returncode == 2 and "another input" in other.stderr
    assert (tmp_path / "answers").read_bytes() == done


def test_resume_needs_a_file(tiny):
    result = run_cli("run", "--model", tiny, "--resume")
    assert result.returncode == 2 and "--output" in result.stderr


def test_an_answer_comes_before_the_next_line(tiny):
    with start(tiny) as process:
        for i in range(1, 4):
            process.stdin.write(json.dumps(request(i)) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["requestId"] == f"r{i}"
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
