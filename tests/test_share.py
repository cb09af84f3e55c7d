"""From a run to a stranger's first prediction: the command line in fresh processes, over HTTP, against the stand-in."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from conftest import write_rows
from fork_server import ForkServer
from hub_client import environment
from hub_server import Hub, hanging_port

CANARY = "hf_CANARY5f0c1d2e3b4a"
TRAINING = ("--num-train-epochs", "4", "--learning-rate", "3e-3", "--per-device-train-batch-size", "8")


@dataclass
class Shared:
    """A Hub that holds a base model, a data set and a pushed run; the run's folder; homes of its users."""

    hub: Hub
    folder: Path
    home: Path
    screen: str
    forks: dict[tuple[str, str], ForkServer] = field(default_factory=dict)
    """User and home → a process that imported everything with that environment."""

    def run(self, *words: object, user: str = CANARY, home: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """`hf-tuner …` as a user, with a cache of its own when `home` names one."""
        variables = environment(self.hub, self.home / (home or "alice"), user, **more)
        if not more:
            server = self.forks.setdefault((user, home), ForkServer(self.home / f"forks-{user}-{home}", variables))
            child = server.start(words, cwd=self.home)
            return subprocess.CompletedProcess(
                list(words), child.wait(280), child.out.read_text(), child.err.read_text()
            )
        line = [sys.executable, "-m", "hf_tuner.cli.main", *map(str, words)]
        return subprocess.run(line, cwd=self.home, env=variables, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Shared]:
    """A run that was trained with --push-to-hub from a model and a data set on the Hub."""
    home = tmp_path_factory.mktemp("share")
    with Hub(home / "hub").serve() as hub:
        hub.tokens[CANARY] = hub.tokens["hf_alice"]
        hub.create("model", "alice/tiny-bert", files={p.name: p.read_bytes() for p in tiny_model.iterdir()})
        data = {
            f"{s}.csv": write_rows(home / f"{s}.csv", n, seed=n).read_bytes() for s, n in (("train", 48), ("test", 24))
        }
        hub.create("dataset", "alice/words", files=data)
        shared = Shared(hub, home / "words-lora", home, "")
        done = shared.run("lora", "--model", "alice/tiny-bert", "--dataset", "alice/words", "--output-dir", shared.folder,
                          "--push-to-hub", "--hub-model-id", "words-lora", *TRAINING)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        shared.screen = done.stdout + done.stderr
        yield shared
        for server in shared.forks.values():
            server.close()


@pytest.fixture(scope="module")
def here(shared: Shared) -> list[tuple[str, float]]:
    """What the run predicts for the test rows, from its own folder."""
    output = shared.home / "here.csv"
    done = shared.run("predict", shared.folder, "--input", "test.csv", "--output", output)
    assert done.returncode == 0, done.stderr
    return predictions(output)


def predictions(path: Path) -> list[tuple[str, float]]:
    """Label and score of each row of an output file."""
    return [(row["prediction"], float(row["score"])) for row in rows(path)]


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_screen_says_where_the_run_is_going_and_that_it_arrived(shared: Shared) -> None:
    assert "alice/words-lora will be made (visible as its owner" in shared.screen
    assert "pushed = saved" in shared.screen and f"{shared.hub.url}/alice/words-lora" in shared.screen
    assert CANARY not in shared.screen


@pytest.mark.fault(62, "S9")
def test_only_what_is_allowed_is_on_the_hub(shared: Shared) -> None:
    repo = shared.hub.repo("model", "alice/words-lora")
    names = set(repo.commits[repo.branches["main"]].tree)
    assert {"adapter_model.safetensors", "adapter_config.json", "manifest.json", "README.md", "tokenizer.json"} <= names
    stray = [
        n
        for n in names
        if not re.fullmatch(r"[\w.]+\.(json|safetensors|md|yaml|txt)|\.gitattributes|figures/\w+\.png", n)
    ]
    assert not stray and not {"training_args.bin", "optimizer.pt", "log.jsonl", "report.html"} & names


@pytest.mark.fault(62, 71, "S8")
def test_no_byte_on_the_hub_holds_the_token_or_a_local_path(shared: Shared) -> None:
    repo = shared.hub.repo("model", "alice/words-lora")
    seen = 0
    for commit in repo.commits.values():
        for name in commit.tree:
            content = shared.hub.content("model", "alice/words-lora", name, commit.id)
            seen += len(content)
            assert CANARY.encode() not in content, name
            assert str(shared.home).encode() not in content, name
    assert seen > 10_000


@pytest.mark.fault(71, "S8")
def test_no_file_of_the_run_holds_the_token(shared: Shared) -> None:
    files = [p for p in shared.folder.rglob("*") if p.is_file()]
    assert len(files) > 8 and not [p for p in files if CANARY.encode() in p.read_bytes()]


@pytest.mark.fault("S14")
def test_the_token_goes_to_the_hub_alone(shared: Shared) -> None:
    assert shared.hub.journal and not [e for e in shared.hub.journal if e.get("note")]


def test_the_manifest_pins_the_commits_of_model_and_data(shared: Shared) -> None:
    manifest = json.loads(shared.hub.content("model", "alice/words-lora", "manifest.json"))
    assert manifest["base"]["revision"] == shared.hub.repo("model", "alice/tiny-bert").branches["main"]
    assert manifest["data"]["revision"] == shared.hub.repo("dataset", "alice/words").branches["main"]


def test_checkpoints_were_pushed_under_their_own_names_and_no_finished_run_among_them(shared: Shared) -> None:
    repo = shared.hub.repo("model", "alice/words-lora")
    steps = [c for c in repo.commits.values() if c.title.startswith("Training in progress")]
    assert steps and not [c for c in steps if "manifest.json" in c.tree]
    last = repo.commits[repo.branches["main"]]
    assert not last.title.startswith("Training in progress") and "manifest.json" in last.tree


def test_another_user_predicts_by_name(shared: Shared, here: list[tuple[str, float]]) -> None:
    there = shared.home / "there.csv"
    away = shared.run(
        "predict", "alice/words-lora", "--input", "test.csv", "--output", there, user="hf_bob", home="bob"
    )
    assert away.returncode == 0, away.stderr
    assert predictions(there) == here and len(here) == 24


def test_the_cards_code_runs_for_a_stranger_without_hf_tuner(shared: Shared, here: list[tuple[str, float]]) -> None:
    card = shared.hub.content("model", "alice/words-lora", "README.md").decode()
    code = next(block for block in re.findall(r"```python\n(.*?)```", card, re.S) if "hf_tuner" not in block)
    code += '\nimport json\nprint("ANSWER" + json.dumps(classify(json.loads(input()))))\n'
    texts = [row["text"] for row in rows(shared.home / "test.csv")]
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(texts), capture_output=True, text=True, cwd=shared.home,
                          env=environment(shared.hub, shared.home / "carol", ""))  # fmt: skip
    assert done.returncode == 0 and "not supported" not in done.stderr, done.stderr
    answers = [(a["label"], a["score"]) for a in json.loads(done.stdout.split("ANSWER")[1])]
    assert [label for label, _ in answers] == [label for label, _ in here]
    assert [score for _, score in answers] == pytest.approx([score for _, score in here], abs=1e-4)


def test_rerun_gives_the_same_metrics_and_weights(shared: Shared) -> None:
    again = shared.home / "again"
    done = shared.run("rerun", "alice/words-lora", "--output-dir", again, user="hf_bob", home="bob")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((f / "report.json").read_text())["metrics"] for f in (shared.folder, again))
    assert first == second and first["test"]
    name = "adapter_model.safetensors"
    assert (again / name).read_bytes() == (shared.folder / name).read_bytes()
    assert "push_to_hub" not in yaml.safe_load((again / "run.yaml").read_text())


def test_pull_makes_a_folder_that_predicts_and_refuses_to_overwrite_it(shared: Shared) -> None:
    done = shared.run("pull", "alice/words-lora", "--output", "pulled", user="hf_bob", home="bob")
    assert done.returncode == 0 and "every file checked" in done.stdout, done.stderr
    assert not any(p.is_symlink() for p in (shared.home / "pulled").rglob("*"))
    again = shared.run("pull", "alice/words-lora", "--output", "pulled", user="hf_bob", home="bob")
    assert again.returncode == 2 and "not an empty folder" in again.stderr


def test_pushing_again_sends_nothing(shared: Shared) -> None:
    repo = shared.hub.repo("model", "alice/words-lora")
    before = len(repo.commits)
    done = shared.run("push", shared.folder)
    assert done.returncode == 0 and "nothing to send" in done.stdout, done.stderr
    assert len(repo.commits) == before


@pytest.mark.slow
def test_a_merged_model_a_branch_a_tag_and_a_subfolder(shared: Shared) -> None:
    assert shared.run("merge", shared.folder).returncode == 0
    words = ("--hub-model-id", "alice/words-merged", "--hub-revision", "dev", "--tag", "v1", "--subfolder", "en")
    done = shared.run("push", shared.folder / "merged", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    repo = shared.hub.repo("model", "alice/words-merged")
    assert "en/model.safetensors" in repo.commits[repo.tags["v1"]].tree and repo.tags["v1"] == repo.branches["dev"]
    output = shared.home / "merged.csv"
    done = shared.run("predict", "alice/words-merged@v1/en", "--input", "test.csv", "--output", output, home="bob")
    assert done.returncode == 0 and len(predictions(output)) == 24, done.stderr


def test_bob_proposes_a_pull_request_to_alice(shared: Shared) -> None:
    words = ("push", shared.folder, "--create-pr", "--hub-model-id")
    done = shared.run(*words, "alice/tiny-bert", user="hf_bob", home="bob")
    assert done.returncode == 3 and "not a run of hf-tuner" in done.stderr
    shared.hub.create("model", "alice/other", files={"manifest.json": b"{}"})
    done = shared.run(*words, "alice/other", user="hf_bob", home="bob")
    assert done.returncode == 0 and "/discussions/" in done.stdout, done.stdout + done.stderr


def test_cached_runs_work_offline(shared: Shared) -> None:
    words = ("predict", "alice/words-lora", "--input", "test.csv", "--output", "offline.csv")
    assert shared.run(*words, user="hf_bob", home="bob").returncode == 0
    before = len(shared.hub.journal)
    done = shared.run(*words, user="hf_bob", home="bob", HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and "HF_HUB_OFFLINE is set" in done.stdout, done.stderr
    assert len(shared.hub.journal) == before


def test_a_hanging_hub_ends_every_verb_in_seconds_and_cached_runs_go_on(shared: Shared) -> None:
    with hanging_port() as port:
        away = {"HF_ENDPOINT": f"http://127.0.0.1:{port}"}
        done = shared.run("push", shared.folder, **away)
        assert done.returncode == 3 and "cannot be reached (" in done.stderr
        done = shared.run("predict", "alice/words-lora", "--input", "test.csv", "--output", "o.csv", home="bob", **away)
        assert done.returncode == 0 and "the cached copy" in done.stdout, done.stderr


@pytest.mark.slow
def test_two_processes_push_as_one(shared: Shared) -> None:
    done = shared.run("lora", "--model", "alice/tiny-bert", "--dataset", "alice/words", "--output-dir", "two", "--num-processes", 2,
                      "--push-to-hub", "--hub-model-id", "alice/words-two", "--max-steps", 2, "--no-verify")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    repo = shared.hub.repo("model", "alice/words-two")
    assert "manifest.json" in repo.commits[repo.branches["main"]].tree


def test_rerun_refuses_other_data_under_the_same_name(shared: Shared) -> None:
    local = shared.home / "local"
    local.mkdir()
    write_rows(local / "train.csv", 30)
    first = shared.run(
        "lora", "--model", "alice/tiny-bert", "--dataset", "local", "--output-dir", "first", "--max-steps", 1
    )
    assert first.returncode == 0, first.stderr
    write_rows(local / "train.csv", 27)
    again = shared.run("rerun", "first", "--output-dir", "second")
    assert (
        again.returncode == 2 and "is not what the run was trained on (test 6 rows, train 24 rows)" in again.stderr
    ), again.stderr
