"""What a finished run of every task can do: measure itself again, predict, merge, and answer through its card's code."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from forks import forked
from task_runs import flags, held, with_methods

from hf_tuner import catalog
from hf_tuner.cli.main import main
from hf_tuner.evaluation.evaluate import evaluate
from hf_tuner.evaluation.loop import finite
from hf_tuner.evaluation.predict import kept_of, predict
from hf_tuner.evaluation.verify import sample_rows
from hf_tuner.models.restore import restore

TASKS = catalog.names("tasks")


@pytest.mark.parametrize("task", TASKS)
def test_saved_run_is_verified_predicts_and_measures_itself_again(task: str, finished: Any) -> None:
    folder = finished(task)
    report = json.loads((folder / "report.json").read_text())
    assert next(p for p in report["proofs"] if p["name"] == "saved = measured")["passed"]
    split, rows, scores = evaluate(folder, split="test")
    assert split == "test" and rows > 0
    for name, score in scores.items():
        assert score["value"] == pytest.approx(report["metrics"]["test"][name]["value"], rel=1e-5), name
    given = held(folder)
    answers = predict(folder, given.to_list())
    assert len(answers) == len(given) and all(answers) and len({tuple(a) for a in answers}) == 1


@pytest.mark.parametrize("task", TASKS)
def test_predict_and_check_from_the_command_line(
    task: str, finished: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given = held(finished(task))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    monkeypatch.chdir(tmp_path)
    main(["predict", str(finished(task)), "--input", "rows.jsonl", "--output", "out.jsonl"])
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(written) == len(given) and set(written[0]) > set(given.column_names)
    main(["check", str(tiny(task).data), "--task", task, *flags(tiny(task).settings)])
    assert "nothing stands in the way" in capsys.readouterr().out


@pytest.mark.parametrize("task", TASKS)
def test_merged_model_answers_like_the_adapter(
    task: str, finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["merge", str(finished(task)), "--output", str(tmp_path / "merged")])
    assert "✓ merged = measured" in capsys.readouterr().out


@pytest.mark.parametrize("task, method", with_methods(TASKS, 4))
def test_code_of_the_card_runs_when_pasted(
    task: str, method: str, finished: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from hf_tuner.hub.card import read_facts
    from hf_tuner.hub.usage import plain_code

    folder = finished(task, method)
    code = "\n".join(plain_code(read_facts(folder))).replace('"FOLDER"', repr(str(folder)))
    code = code.replace('"BASE"', repr(str(tiny(task).model)))
    (tmp_path / "pasted.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "teal").save("picture.jpg")
    done = forked(lambda: runpy.run_path(str(tmp_path / "pasted.py")))
    assert done.code == 0, f"{code}\n{done.text}"
    assert done.text.strip(), "the code prints no answer"


@pytest.mark.parametrize("task, method", with_methods(TASKS, 4))
def test_rows_of_the_tasks_own_can_stand_in_for_data_that_is_not_at_hand(task: str, method: str, finished: Any) -> None:
    saved = restore(finished(task, method))
    kept, ready = kept_of(saved, sample_rows(saved.task))
    assert len(kept) == len(ready) >= 3 and finite(kept).all()
