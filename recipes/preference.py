"""Preference tuning: a language model learns which answers are better (DPO, IPO, ORPO, SimPO, KTO).

accelerate launch recipes/preference.py --model HuggingFaceTB/SmolLM2-135M-Instruct --dataset trl-lib/ultrafeedback_binarized
hf-tuner lora --task preference --model HuggingFaceTB/SmolLM2-135M-Instruct --dataset trl-lib/ultrafeedback_binarized
"""

from hf_tuner import Preference, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "dataset": "trl-lib/ultrafeedback_binarized"}


def recipe(run: Run) -> Report:
    """Tune a language model to preferences; every step returns an ordinary Hugging Face object."""
    data = load_data(run, Preference)
    task = Preference.from_data(data, run)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
