"""Models and data sets by their name on the Hub: private, gated, incomplete, damaged; each with its own sentence."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows
from hub_here import connect
from hub_server import Hub
from transformers import AutoModelForSequenceClassification

from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.hub import pins
from hf_tuner.hub.manifest import sha256
from hf_tuner.models.foreign import sketch_of
from hf_tuner.models.load import load_config, located, read_weights
from hf_tuner.models.processors import load_processor
from hf_tuner.tasks.text_classification import TextClassification

MODEL, DATA = "alice/tiny", "alice/words"


@pytest.fixture
def stocked(there: Hub, tiny_model: Path, tmp_path: Path) -> Hub:
    """The stand-in with a model and a data set."""
    there.create("model", MODEL, files={p.name: p.read_bytes() for p in tiny_model.iterdir()})
    there.create("dataset", DATA, files={"train.csv": write_rows(tmp_path / "train.csv", 24).read_bytes()})
    return there


def tokenizer(**changes: Any) -> Any:
    """The tokenizer of a run on the Hub's model."""
    return load_processor(Run(**{"model": MODEL, "output_dir": "unused", **changes}))


def data(**changes: Any) -> Any:
    """The rows of a run on the Hub's data set."""
    return load_data(Run(**{"dataset": DATA, "output_dir": "unused", **changes}), TextClassification)


def become(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Ask with another token from now on."""
    monkeypatch.setenv("HF_TOKEN", token)
    pins._asked.cache_clear()


def test_model_and_data_come_at_a_commit(stocked: Hub) -> None:
    assert len(tokenizer()) > 5
    assert located(Run(model=MODEL, output_dir="unused"))[1] == stocked.repo("model", MODEL).branches["main"]
    assert data().tuner_notes["revision"] == stocked.repo("dataset", DATA).branches["main"]


def test_an_older_commit_is_read_when_it_is_asked_for(stocked: Hub, tmp_path: Path) -> None:
    repo = stocked.repo("dataset", DATA)
    first = repo.branches["main"]
    stocked.put(repo, {"train.csv": write_rows(tmp_path / "more.csv", 36).read_bytes()})
    count = {at: sum(map(len, data(dataset=f"{DATA}@{at}").values())) for at in (first, "main")}
    assert count == {first: 24, "main": 36}


@pytest.mark.parametrize("load, kind, repo", [(tokenizer, "model", MODEL), (data, "dataset", DATA)])
@pytest.mark.fault(60)
def test_private_gated_and_missing_each_have_a_sentence(
    load: Any, kind: str, repo: str, stocked: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, "hf_bob")
    stocked.repo(kind, repo).gated = "manual"
    with pytest.raises(EnvironmentFault, match="it is gated: ask for access on its page"):
        load()
    stocked.repo(kind, repo).private = True
    with pytest.raises(EnvironmentFault, match="no such repository, or this token cannot see it"):
        load()
    become(monkeypatch, "")
    with pytest.raises(EnvironmentFault, match="or it is private: log in"):
        load()
    become(monkeypatch, "hf_wrong")
    with pytest.raises(EnvironmentFault, match="does not accept the token from HF_TOKEN"):
        load()


def test_misspelt_names_get_the_nearest(stocked: Hub) -> None:
    with pytest.raises(EnvironmentFault, match=f'did you mean "{MODEL}"'):
        tokenizer(model="alice/tyny")
    with pytest.raises(EnvironmentFault, match=f'did you mean "{DATA}"'):
        data(dataset="alice/wods")


def test_a_missing_revision_names_those_there_are(stocked: Hub) -> None:
    with pytest.raises(EnvironmentFault, match="no such branch, tag or commit; there are: main"):
        tokenizer(model_revision="v9")


def test_a_model_without_a_tokenizer_is_refused(stocked: Hub, tiny_model: Path) -> None:
    """transformers makes up a tokenizer of five tokens for it, in which every word is unknown."""
    files = {n: (tiny_model / n).read_bytes() for n in ("config.json", "model.safetensors")}
    stocked.create("model", "alice/bare", files=files)
    with pytest.raises(ArtifactError, match="has no tokenizer files"):
        tokenizer(model="alice/bare")


def test_a_byte_of_the_weights_that_changed_on_its_way_is_found(
    stocked: Hub, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = f"/_cdn/{sha256(tiny_model / 'model.safetensors')}"
    run = Run(model=MODEL, output_dir="unused")
    stocked.fail(path=large, method="GET", flip_byte=-9)
    sketch = sketch_of(AutoModelForSequenceClassification, load_config(run), MODEL)
    model, missing = read_weights(run, TextClassification, sketch, {})
    assert "model.safetensors of alice/tiny arrived damaged" in capsys.readouterr().err
    assert missing == ["classifier.bias", "classifier.weight"] and model.num_labels == 2


def test_weights_that_stay_damaged_are_refused_each_time(stocked: Hub, tiny_model: Path) -> None:
    large = f"/_cdn/{sha256(tiny_model / 'model.safetensors')}"
    stocked.fail(path=large, method="GET", flip_byte=-9, times=99)
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"model.safetensors of alice/tiny arrived damaged"):
            read_weights(Run(model=MODEL, output_dir="unused"), TextClassification, None, {})


def test_a_damaged_data_set_is_refused_each_time_and_never_trained_on(stocked: Hub) -> None:
    """The rows of the damaged file were prepared under the right commit: they must not be found there again."""
    stocked.fail(path="/resolve/.*/train.csv", method="GET", flip_byte=40, times=99)
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"train.csv of alice/words arrived damaged"):
            data()
    stocked.faults.clear()
    assert sum(map(len, data().values())) == 24


def test_offline_each_name_is_the_version_it_was(stocked: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repo = stocked.repo("model", MODEL)
    first = repo.branches["main"]
    repo.tags["v1"] = first
    second = stocked.put(repo, {"notes.md": b"newer"})
    for name in (None, "v1"):
        tokenizer(model_revision=name)
    pins._asked.cache_clear()
    connect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    assert {n: located(Run(model=MODEL, model_revision=n, output_dir="x"))[1] for n in (None, "v1")} == {
        None: second,
        "v1": first,
    }


def test_what_is_cached_goes_on_when_the_hub_goes_away(
    stocked: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = len(tokenizer())
    pins._asked.cache_clear()
    connect(monkeypatch, "http://127.0.0.1:9", tmp_path)
    assert len(tokenizer()) == size
