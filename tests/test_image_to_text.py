"""Image-to-text: what a picture shows, in words."""

from pathlib import Path

import pytest
from tiny_tasks._captioners import vit_gpt2

from hf_tuner.errors import ArtifactError
from hf_tuner.models.foreign import processor_of
from hf_tuner.models.processors import tokenizer_in


def test_tokenizer_and_image_processor_of_two_models_become_one_processor(tmp_path: Path) -> None:
    processor = processor_of("AutoProcessor", str(vit_gpt2(tmp_path / "model")))
    assert tokenizer_in(processor).eos_token_id == 2 and processor.image_processor.size["height"] == 32
    processor.save_pretrained(tmp_path / "again")
    again = processor_of("AutoProcessor", str(tmp_path / "again"))
    assert type(again) is type(processor) and again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises((ArtifactError, OSError), match=r"preprocessor_config\.json"):
        processor_of("AutoProcessor", str(tmp_path / "model"))
