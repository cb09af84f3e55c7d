"""Fine-tune Hugging Face models, in language or vision, and have it simply work.

    from hf_tuner import finetune
    report = finetune(model="bert-base-uncased", dataset="stanfordnlp/imdb", method="lora")

Names are loaded on first use (PEP 562), so importing the package costs nothing.
"""

import importlib
import logging
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Run": "config",
    "finetune": "launching",
    "launch": "launching",
    "load_data": "data.load",
    "load_processor": "models.processors",
    "examine": "training.examine",
    "load_model": "models.load",
    "load_task": "models.processors",
    "fit": "training.fit",
    "evaluate": "evaluation.evaluate",
    "predict": "evaluation.predict",
    "merge": "models.merge",
    "Report": "report.report",
    "CausalLM": "tasks.causal_lm",
    "ContrastiveImageText": "tasks.contrastive_image_text",
    "Preference": "tasks.preference",
    "SFT": "tasks.sft",
    "ImageClassification": "tasks.image_classification",
    "ImageTextToText": "tasks.image_text_to_text",
    "ImageToText": "tasks.image_to_text",
    "SemanticSegmentation": "tasks.semantic_segmentation",
    "InstanceSegmentation": "tasks.instance_segmentation",
    "MaskedLM": "tasks.masked_lm",
    "MultipleChoice": "tasks.multiple_choice",
    "ObjectDetection": "tasks.object_detection",
    "PanopticSegmentation": "tasks.panoptic_segmentation",
    "Reranking": "tasks.reranking",
    "SentenceSimilarity": "tasks.sentence_similarity",
    "Summarization": "tasks.summarization",
    "TextClassification": "tasks.text_classification",
    "TokenClassification": "tasks.token_classification",
    "QuestionAnswering": "tasks.question_answering",
    "Translation": "tasks.translation",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hf_tuner' has no attribute '{name}'")
    # peft imports bitsandbytes, which recommends a package that would fetch compiled code from the Hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return getattr(importlib.import_module(f"hf_tuner.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
