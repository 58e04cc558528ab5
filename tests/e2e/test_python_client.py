"""deploy/clients/python: built and installed by pip, its own tests, its types, and the real server."""
import asyncio
import glob
import os
import shutil
import subprocess
import sys
import threading

import grpc
import pytest

from harness import ROOT, TIMEOUT, Server, eventually, free_port
from stubs import pb

SOURCE = os.path.join(ROOT, "deploy/clients/python")


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The package's folder as it lies in the repository, where it can be built."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(SOURCE, root / "deploy/clients/python", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(os.path.join(ROOT, "proto/sirocco"), root / "proto/sirocco")
    return root / "deploy/clients/python"


@pytest.fixture(scope="session")
def installed(source, tmp_path_factory):
    """A folder into which pip has installed the package, out of its source archive."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(folder / "dist"), cwd=source)
    [archive] = glob.glob(f"{folder}/dist/*.tar.gz")
    run(sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir",
        "--no-index", "--no-build-isolation", "--no-deps", "--target", str(folder / "lib"), archive)
    return str(folder / "lib")


@pytest.fixture(scope="session")
def client_module(installed):
    sys.path.insert(0, installed)
    import sirocco_client  # pylint: disable=import-outside-toplevel
    assert sirocco_client.__file__.startswith(installed)
    return sirocco_client


def test_its_own_tests(installed, source):
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=source,
        env={**os.environ, "PYTHONPATH": installed})


def test_its_types(installed, source, tmp_path):
    run(sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "sirocco_client",
        "tests/typed_use.py", cwd=source, env={**os.environ, "MYPYPATH": installed})


@pytest.fixture(scope="module")
def narrow_server(smollm2):
    """One sequence at a time, and one that waits: more are refused."""
    with Server(smollm2, "--max-batch-size", 1, "--max-queue-size", 1,
                "--max-length", 1024) as server:
        yield server


LONG = {"max_new_tokens": 900, "timeout": 60}


def test_it_says_what_the_server_says(client_module, narrow_server):
    wanted = narrow_server.generate(prompt="The wind", max_new_tokens=8).completions[0]
    with client_module.Client(narrow_server.address) as client:
        assert client.generate("The wind", max_new_tokens=8).completions[0] == wanted
        ids = client.tokenize("The wind")
        assert client.generate(ids, max_new_tokens=8).completions[0] == wanted
        assert client.detokenize(ids) == "The wind"
        with client.stream("The wind", max_new_tokens=8) as events:
            assert "".join(event.text for event in events) == wanted.text
        chat = [("user", "What is the capital of Japan?")]
        assert "Tokyo" in client.generate(chat, max_new_tokens=40).completions[0].text
        assert client.model().max_length == 1024
        with pytest.raises(client_module.Error) as raised:
            client.generate("The wind", temperature=-1)
        assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert list(raised.value.violations) == ["sampling.temperature"]


def test_leaving_a_stream_frees_its_blocks(client_module, narrow_server):
    with client_module.Client(narrow_server.address) as client:
        with client.stream("Once upon a time", **LONG) as events:
            next(events)
            assert not narrow_server.idle()
        eventually(narrow_server.idle)
        with pytest.raises(client_module.Error) as raised:
            for _ in client.stream("Once upon a time", max_new_tokens=900, timeout=0.5):
                pass
        assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(narrow_server.idle)


def refused(server):
    return server.metrics()("sirocco_rejected_total", reason="queue_full")


def test_threads_that_were_refused_come_back_when_told(client_module, narrow_server):
    before = refused(narrow_server)
    texts = []
    retries = client_module.RetryPolicy(attempts=50)
    with client_module.Client(narrow_server.address, retries=retries) as client:
        def ask():
            answer = client.generate("Once upon a time", max_new_tokens=20, timeout=TIMEOUT)
            texts.append(answer.completions[0].text)
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 8 and len(set(texts)) == 1
    assert refused(narrow_server) > before


def test_asyncio(client_module, narrow_server):
    wanted = narrow_server.generate(prompt="The wind", max_new_tokens=20).completions[0].text
    before = refused(narrow_server)

    async def ask_all():
        retries = client_module.RetryPolicy(attempts=50)
        async with client_module.AsyncClient(narrow_server.address, retries=retries) as client:
            async def ask():
                text = ""
                async with client.stream("The wind", max_new_tokens=20, timeout=TIMEOUT) as events:
                    async for event in events:
                        text += event.text
                return text
            assert await asyncio.gather(*(ask() for _ in range(8))) == [wanted] * 8
            async with client.stream("Once upon a time", **LONG) as events:
                assert (await events.__anext__()).token_ids
            with pytest.raises(client_module.Error) as raised:
                await client.generate("Once upon a time", max_new_tokens=900, timeout=0.5)
            assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
            return await client.tokenize("The wind")
    assert asyncio.run(ask_all()) == narrow_server.tokenize("The wind")
    assert refused(narrow_server) > before
    eventually(narrow_server.idle)


def test_a_server_that_starts_again(client_module, bare):
    listen = (f"127.0.0.1:{free_port()}", "127.0.0.1:0")
    request = pb.GenerateRequest(prompt_token_ids={"ids": [5]}, max_new_tokens=4)
    retries = client_module.RetryPolicy(attempts=50, longest_pause=1)
    with client_module.Client(listen[0], retries=retries) as client:
        with Server(bare, listen=listen):
            wanted = client.generate(request).completions
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(client.generate(request, timeout=TIMEOUT).completions))
        thread.start()
        with Server(bare, listen=listen):
            thread.join()
        assert answers == [wanted]
