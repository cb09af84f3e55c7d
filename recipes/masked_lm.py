"""Masked language modelling: go on pretraining an encoder on raw text of a domain.

accelerate launch recipes/masked_lm.py --model google-bert/bert-base-uncased --dataset Salesforce/wikitext:wikitext-2-raw-v1
hf-tuner lora --task masked-lm --model google-bert/bert-base-uncased --dataset Salesforce/wikitext:wikitext-2-raw-v1
hf-tuner full --task masked-lm --model google-bert/bert-base-uncased --dataset notes.txt --mask-probability 0.3
"""

from hf_tuner import MaskedLM, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "google-bert/bert-base-uncased", "dataset": "Salesforce/wikitext:wikitext-2-raw-v1"}


def recipe(run: Run) -> Report:
    """Go on pretraining an encoder; every step returns an ordinary Hugging Face object."""
    data = load_data(run, MaskedLM)
    task = MaskedLM.from_data(data, run)
    processor = load_processor(run)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
