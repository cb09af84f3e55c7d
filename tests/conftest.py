"""Tiny models made from configurations and a small vocabulary, tiny data, and a way to run the command line."""

import csv
import functools
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reloads
import tiny_tasks
from fault_page import Proofs
from fork_server import ForkServer
from hub_server import Hub
from tiny_tasks import Tiny

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

WORDS = {
    "weather": "rain sun wind cloud storm snow fog warm cold sky".split(),
    "food": "bread soup apple cheese rice salad cake bean milk egg".split(),
    "sport": "ball team goal race coach score match run swim jump".split(),
}
FILLER = "the a is was today very good with and my your this that it".split()


def sentence(random: np.random.Generator, label: str) -> str:
    """A sentence whose label can be learned: filler with a few words of its class."""
    words = [*random.choice(WORDS[label], 3), *random.choice(FILLER, int(random.integers(2, 9)))]
    return " ".join(random.permutation(words))


def write_rows(path: Path, count: int, seed: int = 0, header: tuple[str, str] = ("text", "label")) -> Path:
    """A CSV with `count` rows over three classes."""
    random = np.random.default_rng(seed)
    names = list(WORDS)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for i in range(count):
            writer.writerow([sentence(random, names[i % 3]) + f" {i}", names[i % 3]])
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers and 32 dimensions, without dropout, with its tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv (48 rows) and test.csv (24 rows)."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "train.csv", 48, seed=1)
    write_rows(folder / "test.csv", 24, seed=2)
    return folder


def make_tiny_model(folder: Path, dropout: float = 0.0) -> Path:
    """Save the tiny model and tokenizer into a folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted({w for ws in WORDS.values() for w in ws} | set(FILLER)),
    ]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@functools.cache
def fork_server() -> ForkServer:
    """The process that forks, one for all tests."""
    return ForkServer(Path(tempfile.mkdtemp(prefix="hf-tuner-forks-")))


def command(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `hf-tuner …` in a process of its own: a fork, where no variable asks for another environment of its imports."""
    line, wanted = list(map(str, words)), {**os.environ, **environment}
    if reloads.read_once(wanted) == reloads.read_once(fork_server().environment):
        child = fork_server().start(line, cwd=cwd, **wanted)
        return subprocess.CompletedProcess(line, child.wait(280), child.out.read_text(), child.err.read_text())
    wanted.pop("TRANSFORMERS_VERBOSITY", None)  # as a user's shell has it
    line = [sys.executable, "-m", "hf_tuner.cli.main", *line]
    return subprocess.run(line, cwd=cwd, env=wanted, capture_output=True, text=True, timeout=280)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A stand-in of the Hub, running, for clients with `hub_client.environment`."""
    with Hub(tmp_path / "hub").serve() as served:
        yield served


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """Task → its tiny set-up, made once."""

    @functools.cache
    def get(task: str) -> Tiny:
        return tiny_tasks.make(task, tmp_path_factory.mktemp("tiny") / task)

    return get


@pytest.fixture(scope="session")
def finished(tiny: Callable[[str], Tiny], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Task and method → the folder of a finished, verified run."""

    @functools.cache
    def get(task: str, method: str = "lora") -> Path:
        from task_runs import QUICK, train

        folder = tmp_path_factory.mktemp("runs") / f"{task}-{method}"
        train(task, method, tiny(task), folder, **QUICK)
        return folder

    return get


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """Starts runs in processes of their own, quickly."""
    server = fork_server()
    yield server
    server.close()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session", autouse=True)
def quick(forks: ForkServer) -> Iterator[dict[str, Any]]:
    """What would be most of a tiny run's time: saved models are reloaded by forks (reloads.py), reports have no figures.

    Tests that look at these take `fresh_process` or `figures`.
    """
    from hf_tuner.evaluation import verify
    from hf_tuner.report import plots

    gc.collect()
    gc.freeze()  # the Trainer collects garbage after each run; of what has been imported none becomes garbage
    users = {"apart": verify.apart, "figures": plots.figures}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "apart", reloads.Reloads(forks).apart)
        patch.setattr(plots, "figures", lambda details: {})
        yield users
    gc.unfreeze()


@pytest.fixture
def fresh_process(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved models are reloaded as users have it: by a process that is new altogether."""
    from hf_tuner.evaluation import verify

    monkeypatch.setattr(verify, "apart", quick["apart"])


@pytest.fixture(scope="module")
def figures(quick: dict[str, Any]) -> Iterator[None]:
    """Reports have their figures, as users have it."""
    from hf_tuner.report import plots

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "figures", quick["figures"])
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished run on the tiny model."""
    home = tmp_path_factory.mktemp("run")
    write_rows(home / "train.csv", 24)
    write_rows(home / "test.csv", 12)
    from hf_tuner.launching import finetune

    finetune(model=str(tiny_model), dataset=str(home), method="lora", output_dir=str(home / "words"), max_steps=2)
    return home / "words"


@pytest.fixture
def there(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The stand-in, asked by this process in alice's name; what is pushed is not reloaded each time."""
    from hub_here import connect

    from hf_tuner.hub import push

    connect(monkeypatch, hub.url, tmp_path)
    monkeypatch.setattr(push, "require_same", lambda *_: None)
    return hub


def pytest_configure(config: pytest.Config) -> None:
    """Remember which tests prove which rows of the fault matrix, for test_fault_page.py."""
    config.pluginmanager.register(Proofs(), "faults")
