"""Fixtures: models, and a server of each that all tests of a file share."""
import os

import pytest

import harness
import tiny_model


@pytest.fixture(scope="session")
def smollm2():
    """The path of SmolLM2-135M-Instruct, a GGUF file with tokenizer and chat template."""
    return harness.smollm2()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The path of a random model with a tokenizer and a chat template."""
    return tiny_model.write(str(tmp_path_factory.mktemp("models") / "tiny"),
                            os.path.join(harness.GOLDENS, "tokenizers/digits_style"))


@pytest.fixture(scope="session")
def bare():
    """The path of a tiny model without a tokenizer: 384 ids, end id 2, 512 positions."""
    return os.path.join(harness.GOLDENS, "llama_tied")


@pytest.fixture(scope="module")
def smollm2_server(smollm2):
    with harness.Server(smollm2, "--max-batch-size", 8, "--max-length", 2048) as server:
        yield server


@pytest.fixture(scope="module")
def tiny_server(tiny):
    with harness.Server(tiny, "--max-batch-size", 32, "--max-length", 4096) as server:
        yield server


@pytest.fixture(scope="module")
def bare_server(bare):
    with harness.Server(bare, "--max-batch-size", 4) as server:
        yield server
