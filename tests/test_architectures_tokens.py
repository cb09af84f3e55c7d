"""Head, blocks and targets are found in every architecture that tags words or answers from texts."""

import pytest
import torch
from test_architectures import UNREACHABLE
from tiny_architectures import on_meta
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from hf_tuner.models.head import head_modules
from hf_tuner.models.targets import find_targets, is_within

OWN_HEADS = {"lxmert": "answer_head", "splinter": "splinter_qass"}
"""Answers from pictures, and from spans that a question token selects: no layer of two outputs."""
LABELS = {"tags": 3, "answers": 2}
CASES = [
    *(("tags", AutoModelForTokenClassification, name) for name in sorted(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES)),
    *(("answers", AutoModelForQuestionAnswering, name) for name in sorted(MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES)),
]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def test_the_lists_of_architectures_are_long() -> None:
    assert sum(kind == "tags" for kind, *_ in CASES) > 90 and sum(kind == "answers" for kind, *_ in CASES) > 70


@pytest.mark.parametrize("kind, auto, model_type", CASES, ids=[f"{kind}-{name}" for kind, _, name in CASES])
def test_head_gives_the_outputs_and_every_block_has_targets(kind: str, auto: type, model_type: str) -> None:
    if model_type in UNREACHABLE:
        with pytest.raises(UNREACHABLE[model_type][0]):
            find_targets(on_meta(model_type, LABELS[kind], auto), ())
        return
    model = on_meta(model_type, LABELS[kind], auto)
    head = head_modules(model)
    targets = find_targets(model, head)
    outputs = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.out_features == LABELS[kind]]
    assert outputs or head == (OWN_HEADS[model_type],)
    assert all(is_within(name, head) for name in outputs)
    assert not [layer for layer in targets.layers if is_within(layer, head)]
    for layer in targets.layers:
        assert any(is_within(name, [layer]) for name in targets.selected), f"no target in {layer}"
    assert not [name for name in (*targets.selected, *targets.norms) if is_within(name, head)]
