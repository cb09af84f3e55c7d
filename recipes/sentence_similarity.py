"""Sentence similarity: an embedding model that puts texts that mean alike close together.

accelerate launch recipes/sentence_similarity.py --model sentence-transformers/all-MiniLM-L6-v2 --dataset sentence-transformers/stsb
hf-tuner lora --task sentence-similarity --model sentence-transformers/all-MiniLM-L6-v2 --dataset sentence-transformers/stsb
"""

from hf_tuner import Report, Run, SentenceSimilarity, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "sentence-transformers/all-MiniLM-L6-v2", "dataset": "sentence-transformers/stsb"}


def recipe(run: Run) -> Report:
    """Fine-tune an embedding model; every step returns an ordinary Hugging Face object."""
    data = load_data(run, SentenceSimilarity)
    task = SentenceSimilarity.from_data(data, run)
    processor = load_processor(run)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
