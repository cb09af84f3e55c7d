"""Image to text: a caption for a picture.

accelerate launch recipes/image_to_text.py --model Salesforce/blip-image-captioning-base --dataset photos/
hf-tuner lora --task image-to-text --model Salesforce/blip-image-captioning-base --dataset photos/
hf-tuner full --task image-to-text --model microsoft/git-base --dataset nlphuji/flickr30k --captions each
"""

from hf_tuner import ImageToText, Report, Run, examine, fit, launch, load_data, load_model, load_processor, load_task

DEFAULTS = {"model": "Salesforce/blip-image-captioning-base", "dataset": "nlphuji/flickr30k"}


def recipe(run: Run) -> Report:
    """Fine-tune a captioner; every step returns an ordinary Hugging Face object."""
    data = load_data(run, ImageToText)
    task = load_task(run, ImageToText, data)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
