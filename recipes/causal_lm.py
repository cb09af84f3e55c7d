"""Causal language modelling: go on pretraining a model that writes on raw text.

accelerate launch recipes/causal_lm.py --model HuggingFaceTB/SmolLM2-135M --dataset Salesforce/wikitext:wikitext-2-raw-v1
hf-tuner lora --task causal-lm --model HuggingFaceTB/SmolLM2-135M --dataset Salesforce/wikitext:wikitext-2-raw-v1
hf-tuner full --task causal-lm --model HuggingFaceTB/SmolLM2-135M --dataset book.txt --block-size 256
"""

from hf_tuner import CausalLM, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "HuggingFaceTB/SmolLM2-135M", "dataset": "Salesforce/wikitext:wikitext-2-raw-v1"}


def recipe(run: Run) -> Report:
    """Go on pretraining a language model; every step returns an ordinary Hugging Face object."""
    data = load_data(run, CausalLM)
    task = CausalLM.from_data(data, run)
    processor = load_processor(run)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
