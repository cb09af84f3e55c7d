"""Instruction tuning: a language model learns to answer, from conversations, instructions or prompts.

accelerate launch recipes/sft.py --model HuggingFaceTB/SmolLM2-135M --dataset HuggingFaceH4/no_robots
hf-tuner lora --task sft --model HuggingFaceTB/SmolLM2-135M --dataset HuggingFaceH4/no_robots
"""

from hf_tuner import SFT, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "HuggingFaceTB/SmolLM2-135M", "dataset": "HuggingFaceH4/no_robots"}


def recipe(run: Run) -> Report:
    """Tune a language model to conversations; every step returns an ordinary Hugging Face object."""
    data = load_data(run, SFT)
    task = SFT.from_data(data, run)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
