"""Multiple choice: which of several endings or answers fits a prompt.

accelerate launch recipes/multiple_choice.py --model google-bert/bert-base-uncased --dataset allenai/swag:regular
hf-tuner lora --task multiple-choice --model google-bert/bert-base-uncased --dataset allenai/swag:regular
hf-tuner lora --task multiple-choice --model google-bert/bert-base-uncased --dataset tau/commonsense_qa
"""

from hf_tuner import MultipleChoice, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "google-bert/bert-base-uncased", "dataset": "allenai/swag:regular"}


def recipe(run: Run) -> Report:
    """Fine-tune a model that chooses; every step returns an ordinary Hugging Face object."""
    data = load_data(run, MultipleChoice)
    task = MultipleChoice.from_data(data, run)
    processor = load_processor(run)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
