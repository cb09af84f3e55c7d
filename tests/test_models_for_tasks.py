"""Encoders for what needs decoders and the other way round: said by the configuration, before weights are read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_tasks import Tiny
from transformers import AutoConfig

from hf_tuner import finetune
from hf_tuner.config import Run
from hf_tuner.errors import UsageError
from hf_tuner.models import load
from hf_tuner.models.processors import load_processor
from hf_tuner.tasks._models import require_decoder, require_encoder
from hf_tuner.tasks.sft import SFT


@pytest.mark.parametrize("task", ["causal-lm", "sft", "preference"])
def test_an_encoder_does_not_write(
    task: str, tiny: Callable[[str], Tiny], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "read_weights", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(UsageError, match=r"encoder that sees both ways .*--task masked-lm; for .* take a decoder"):
        finetune(task, model=str(tiny_model), dataset=str(tiny(task).data), output_dir=str(tmp_path / "run"))


def test_an_encoder_is_named_before_its_missing_end_token(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="sees both ways"):
        load_processor(Run(model=str(tiny_model), output_dir="x"), SFT())


def test_a_decoder_hides_no_words(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a decoder that writes, and masked-lm needs an encoder .*--task causal-lm"):
        finetune("masked-lm", model=str(tiny("causal-lm").model), dataset=str(tiny("masked-lm").data),
                 output_dir=str(tmp_path / "run"))  # fmt: skip


def test_models_are_told_by_their_configuration() -> None:
    for name in ("llama", "gpt2", "bart"):
        require_decoder(AutoConfig.for_model(name), "m", "causal-lm")
    require_decoder(AutoConfig.for_model("bert", is_decoder=True), "m", "causal-lm")
    for name in ("bert", "distilbert", "bart", "modernbert"):
        require_encoder(AutoConfig.for_model(name), "m", "masked-lm")
    with pytest.raises(UsageError, match=r"t5 is an encoder with a decoder, and causal-lm needs .*summarization"):
        require_decoder(AutoConfig.for_model("t5"), "m", "causal-lm")
    with pytest.raises(UsageError, match="vit is no language model"):
        require_encoder(AutoConfig.for_model("vit"), "m", "masked-lm")
