"""The code of a card, pasted into a process that knows nothing of hf-tuner, answers as hf-tuner does."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WORDS, sentence

from hf_tuner import finetune, predict
from hf_tuner.errors import ArtifactError
from hf_tuner.hub.card import card, read_facts

RUNS = {
    "adapter": ("single", False, {"method": "lora"}),
    "adapter with averaging": ("multi", True, {"method": "lora", "pooling": "mean"}),
    "prompts": ("single", True, {"method": "prefix"}),
    "whole": ("single", False, {"method": "full"}),
    "whole, a number": ("regression", False, {"method": "full"}),
}
STRANGER = """
import json, sys
for code, rows in json.load(open(sys.argv[1])):
    names = {}
    exec(code, names)
    print("ANSWERS", json.dumps(names["classify"](rows)))
print("OURS", [name for name in sys.modules if name.startswith("hf_tuner")])
"""


def write_examples(folder: Path, problem: str, pair: bool) -> list[Any]:
    """A data set of 48 and 24 rows, and four inputs for a classifier of it."""
    random, names = np.random.default_rng(0), list(WORDS)
    folder.mkdir()
    for split, count in (("train", 48), ("test", 24)):
        rows = []
        for i in range(count):
            label = {
                "single": names[i % 3],
                "multi": sorted({names[i % 3], names[i % 2]}),
                "regression": i % 3 + i / 100,
            }
            second = {"text_pair": sentence(random, names[(i + 1) % 3])} if pair else {}
            rows.append({"text": sentence(random, names[i % 3]), **second, "label": label[problem]})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    inputs = [{k: v for k, v in row.items() if k != "label"} for row in rows[:4]]
    return inputs if pair else [row["text"] for row in inputs]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, tuple[Path, list[Any]]]:
    """A finished run's folder and inputs for it, for each of RUNS."""
    place = tmp_path_factory.mktemp("runs")
    made = {}
    for name, (problem, pair, settings) in RUNS.items():
        folder = place / name.replace(",", "").replace(" ", "-")
        rows = write_examples(place / f"data-{folder.name}", problem, pair)
        finetune(model=str(tiny_model), dataset=str(place / f"data-{folder.name}"), output_dir=str(folder), seed=1,
                 way_in="random", probe_rows=0, num_train_epochs=1, verify=False, **settings)  # fmt: skip
        made[name] = (folder, rows)
    return made


@pytest.fixture(scope="module")
def stranger(finished: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the plain code of every card answers, pasted into one process that knows nothing of us; and its errors."""
    work = []
    for folder, rows in finished.values():
        written = (folder / "README.md").read_text(encoding="utf-8")
        code = next(c for c in re.findall(r"^```python\n(.*?)^```", written, re.S | re.M) if "hf_tuner" not in c)
        work.append((code.replace('"FOLDER"', repr(str(folder))).replace('"BASE"', repr(str(tiny_model))), rows))
    task = tmp_path_factory.mktemp("stranger") / "work.json"
    task.write_text(json.dumps(work), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", STRANGER, str(task)], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "OURS []" in done.stdout
    answers = [
        json.loads(line.removeprefix("ANSWERS ")) for line in done.stdout.splitlines() if line.startswith("ANSWERS ")
    ]
    return {**dict(zip(finished, answers, strict=True)), "errors": done.stderr}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.fault(31, 40)
def test_the_pasted_code_answers_as_hf_tuner_does(name: str, finished: Any, stranger: dict[str, Any]) -> None:
    folder, rows = finished[name]
    expected = predict(folder, rows)
    assert len(stranger[name]) == len(expected) == 4
    for theirs, ours in zip(stranger[name], expected, strict=True):
        given = {a["label"]: a["score"] for a in (theirs if isinstance(theirs, list) else [theirs])}
        if RUNS[name][0] == "multi":
            assert given == pytest.approx(ours["probabilities"], abs=1e-6)
        else:
            wanted = {"LABEL_0" if RUNS[name][0] == "regression" else ours["prediction"]: ours["score"]}
            assert given == pytest.approx(wanted, abs=1e-6)
    assert "is not supported" not in stranger["errors"]


def test_facts_are_read_from_the_folder_alone(finished: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished["adapter"][0], tmp_path / "run"))
    rows = ["run_id,duration,emissions", "a,1,0.001", "a,2,0.002", "b,1,0.01"]
    (folder / "emissions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    known = read_facts(folder, repo="alice/run")
    assert (
        known.kilograms == pytest.approx(0.012) and known.adapter["peft_type"] == "LORA" and known.repo == "alice/run"
    )
    assert known.progress["step"] == 2 and known.manifest.base["layers"] == 2
    assert (folder / "README.md").read_text(encoding="utf-8") == card(replace(known, repo=None, kilograms=None))
    (folder / "emissions.csv").write_text("run_id,emissions\na,many\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"emissions\.csv cannot be read"):
        read_facts(folder)
    (folder / "emissions.csv").unlink()
    (folder / "run.yaml").unlink()
    with pytest.raises(ArtifactError, match=r"run\.yaml is missing"):
        read_facts(folder)
