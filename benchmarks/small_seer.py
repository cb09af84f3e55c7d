"""Make a small model that sees and chats, and questions about drawn shapes for it, in the layout of the Hub.

    python benchmarks/small_seer.py --output DIR [--train 400] [--test 60] [--width 64]
    hf-tuner full --task image-text-to-text --model DIR/model --dataset DIR/data --max-length 96 --num-train-epochs 30 \\
        --per-device-train-batch-size 12 --learning-rate 3e-3 --output-dir DIR/run
    hf-tuner predict DIR/run --input DIR/data/test.jsonl --output DIR/answers.jsonl

DIR/model is a SmolVLM (Idefics 3) of about 220,000 parameters that nothing was taught, its pictures 32 pixels wide and four
tokens long; DIR/data has one to three squares, circles or triangles of one of four colours on every picture, and asks "what
colour", "what shape" and "how many" about each. Pictures of test are none of train.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from tiny_tasks.image_text_to_text import make_smolvlm, write_questions


def main() -> None:
    """Write the model and the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--train", type=int, default=400, help="pictures to learn from, three questions about each")
    parser.add_argument("--test", type=int, default=60, help="pictures to measure on")
    parser.add_argument("--width", type=int, default=64, help="hidden size of both towers")
    seen = parser.parse_args()
    place = Path(seen.output)
    write_questions(place / "data", {"train": seen.train, "test": seen.test}, colours=4)
    make_smolvlm(place / "model", width=seen.width)
    print(f"saved: {place / 'model'}, {place / 'data'} ({3 * seen.train:,} and {3 * seen.test:,} questions)")


if __name__ == "__main__":
    main()
