"""What rows of sentence-similarity are taken for, and what is refused in which words."""

from typing import Any

import pytest
from datasets import Dataset

from hf_tuner.errors import UsageError
from hf_tuner.tasks import _similarity_rows as rows_of
from hf_tuner.tasks._task import EmptyRow, RowError


def layout(rows: list[dict[str, Any]], given: dict[str, str] | None = None) -> Any:
    return rows_of.layout(Dataset.from_list(rows).features, rows, given or {})


@pytest.mark.parametrize(
    "row, name, canonical",
    [
        ({"sentence1": "a", "sentence2": "b", "similarity_score": 2.5}, "scored pairs",
         {"text": "a", "text_pair": "b", "label": 2.5}),
        ({"sentence1": "a", "sentence2": "b", "label": 1}, "pairs that are alike (1) or not (0)",
         {"text": "a", "text_pair": "b", "label": 1.0}),
        ({"question": "a", "answer": "b"}, "pairs that belong together", {"text": "a", "text_pair": "b"}),
        ({"query": "a", "passage": "b", "title": "c"}, "pairs that belong together", {"text": "a", "text_pair": "b"}),
        ({"anchor": "a", "positive": "b", "negative": "c"}, "triplets", {"text": "a", "text_pair": "b", "negative": ["c"]}),
        ({"query": "a", "positive": "b", "negative_1": "c", "negative_2": "d"}, "triplets",
         {"text": "a", "text_pair": "b", "negative": ["c", "d"]}),
        ({"query": "a", "pos": "b", "negatives": ["c", "d"]}, "triplets", {"text": "a", "text_pair": "b", "negative": ["c", "d"]}),
        ({"text": "a"}, "single texts", {"text": "a"}),
    ],
)  # fmt: skip
def test_layout_is_recognised(row: dict[str, Any], name: str, canonical: dict[str, Any]) -> None:
    found = layout([row])
    assert found.name == name and found.convert(row) == canonical


def test_columns_can_be_given() -> None:
    found = layout([{"left": "a", "right": "b", "how": "0.5"}], {"text": "left", "text_pair": "right", "label": "how"})
    assert found.convert({"left": "a", "right": "b", "how": "0.5"}) == {"text": "a", "text_pair": "b", "label": 0.5}


def test_what_cannot_be_read_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="no column with texts among left, right"):
        layout([{"left": "a", "right": "b"}])
    found = layout([{"sentence1": "a", "sentence2": "b", "score": 1.0}])
    with pytest.raises(EmptyRow, match='column "sentence2" is empty'):
        found.convert({"sentence1": "a", "sentence2": " ", "score": 1.0})
    with pytest.raises(RowError, match="holds 'much', expected a number"):
        found.convert({"sentence1": "a", "sentence2": "b", "score": "much"})


def test_classes_are_no_scale() -> None:
    from datasets import ClassLabel, Features, Value

    features = Features(
        {"premise": Value("string"), "hypothesis": Value("string"), "label": ClassLabel(names=["e", "n", "c"])}
    )
    with pytest.raises(UsageError, match="no scale of similarity"):
        rows_of.layout(features, [{"premise": "a", "hypothesis": "b", "label": 2}], {})


def test_single_texts_and_negatives_that_are_none_are_found() -> None:
    with pytest.raises(UsageError, match="one text each"):
        rows_of.audit({"train": Dataset.from_list([{"text": "a"}])})
    rows = Dataset.from_list(
        [{"text": "a", "text_pair": "b", "negative": ["c"]}, {"text": "a", "text_pair": "b", "negative": ["b"]}]
    )
    assert [(split, row) for split, row, _ in rows_of.audit({"train": rows}).errors] == [("train", 1)]
