"""Make a small detector around the ImageNet weights of a MobileNetV2 classifier, in the layout of the Hub.

    python benchmarks/small_detector.py --classifier mobilenet_v2_1.0_224 --picture photo.jpg --output DIR
    hf-tuner full --task object-detection --model DIR --dataset bccd --num-train-epochs 20 --learning-rate 5e-4 \\
        --optimizer backbone-rate --ema 0.99 --per-device-train-batch-size 4 --warmup-steps 100

The detector is an RT-DETR v2 (Lv et al. 2024, arXiv 2407.17140): timm's MobileNetV2, whose weights are those of the
classifier, an encoder over strides 8, 16 and 32, and a decoder of a few layers; all but the backbone is random. What the
backbone computes is compared with what the classifier computes, on a real picture. The two differ on purpose in one thing:
TensorFlow pads strided convolutions on the right and at the bottom only, PyTorch all around. That moves the grid by half a
stride at each of the five steps, which a detector that is trained afterwards does not mind; both are compared.
"""

import argparse
import math
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    RTDetrImageProcessor,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    TimmBackboneConfig,
    set_seed,
)
from transformers.utils import logging

EPS = 1e-5
"""What timm's batch norms add to the variance; MobileNetV2 from TensorFlow adds 1e-3."""
STAGES, LAYERS = (2, 3, 4), (4, 11, 15)
"""timm's stages of strides 8, 16 and 32, and the classifier's hidden states that are the same."""
CHANNELS = (32, 96, 320)
CLOSE = 1e-4


def main() -> None:
    """Build, compare, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", required=True, help="folder of a MobileNetV2 of depth multiplier 1")
    parser.add_argument("--picture", required=True, help="a real picture on which features are compared")
    parser.add_argument("--output", required=True)
    parser.add_argument("--size", type=int, default=256, help="longest edge of pictures in pixels")
    parser.add_argument("--width", type=int, default=128, help="channels of encoder and decoder")
    parser.add_argument("--layers", type=int, default=3, help="layers of the decoder")
    parser.add_argument("--queries", type=int, default=100, help="boxes at most")
    parser.add_argument("--denoising", type=int, default=100, help="noisy copies of boxes while training; 0: none")
    seen = parser.parse_args()
    set_seed(0)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    backbone = pretrained(seen.classifier)
    model = detector(seen)
    own = model.model.backbone.model
    own.load_state_dict(remapped(backbone, own.state_dict()))
    compare(seen.classifier, own.eval(), Image.open(seen.picture).convert("RGB").resize((seen.size, seen.size)))
    model.save_pretrained(seen.output)
    processor(seen.classifier, seen.size).save_pretrained(seen.output)
    counts = [sum(p.numel() for p in part.parameters()) for part in (own, model)]
    print(f"saved: {seen.output}; {counts[1]:,} parameters, {counts[0]:,} of them ImageNet's")


def pretrained(folder: str, padding: bool = True) -> Any:
    """The classifier's body; `padding` as TensorFlow does it, else as PyTorch."""
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "mobilenet_v2" or config.depth_multiplier != 1:
        raise SystemExit(f"--classifier {folder}: {config.model_type}; expected a MobileNetV2 of depth multiplier 1")
    config.tf_padding = padding
    return AutoModelForImageClassification.from_pretrained(folder, config=config).mobilenet_v2.eval()


def detector(seen: Any) -> RTDetrV2ForObjectDetection:
    """An RT-DETR v2 of random weights. Its own freezing of batch norms would drop timm's activations, so it is off."""
    wide = seen.width
    config = RTDetrV2Config(
        backbone_config=TimmBackboneConfig(backbone="mobilenetv2_100", out_indices=list(STAGES)),
        freeze_backbone_batch_norms=False, encoder_in_channels=list(CHANNELS), encoder_hidden_dim=wide, d_model=wide,
        decoder_in_channels=[wide] * 3, encoder_ffn_dim=4 * wide, decoder_ffn_dim=4 * wide, encoder_attention_heads=4,
        decoder_attention_heads=4, hidden_expansion=0.5, decoder_layers=seen.layers, num_queries=seen.queries,
        num_denoising=seen.denoising, num_labels=80,
    )  # fmt: skip
    return RTDetrV2ForObjectDetection(config)


def remapped(body: Any, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The classifier's weights under timm's names: both list the same layers in the same order.

    The two add different constants to the variance; the difference goes into the variance itself.
    """
    given = [(n, t) for n, t in body.state_dict().items() if not n.startswith("conv_1x1.")]
    if [t.shape for _, t in given] != [t.shape for t in wanted.values()]:
        raise SystemExit("the classifier's layers are not those of timm's mobilenetv2_100")
    more = body.config.layer_norm_eps - EPS
    return {name: tensor + more if name.endswith("running_var") else tensor
            for name, (_, tensor) in zip(wanted, given, strict=True)}  # fmt: skip


def compare(folder: str, backbone: Any, picture: Image.Image) -> None:
    """Print how near the backbone's features are to the classifier's, padded either way; stop where they are not equal."""
    pixels = processor(folder, picture.width)(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        ours = backbone(pixels).feature_maps
        same, theirs = (
            [pretrained(folder, padding)(pixels, output_hidden_states=True).hidden_states[k] for k in LAYERS]
            for padding in (False, True)
        )
        steps = [math.log2(pixels.shape[-1] / one.shape[-1]) for one in ours]
        moved = [
            backbone(torch.roll(pixels, (1 - int(2**step),) * 2, (2, 3))).feature_maps[i]
            for i, step in enumerate(steps)
        ]
    for step, a, b, c, d in zip(steps, ours, same, theirs, moved, strict=True):
        away = float((a - b).abs().max() / b.abs().max())
        print(
            f"stride {2**step:.0f}: {tuple(a.shape[1:])}, largest difference {away:.1e} of the largest value; with TensorFlow's "
            f"padding correlation {correlation(a, c):.3f}, {correlation(d, c):.3f} on the moved picture"
        )
        if away > CLOSE:
            raise SystemExit("the backbone does not compute what the classifier computes")


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson's correlation of two feature maps."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def processor(folder: str, size: int) -> RTDetrImageProcessor:
    """Longest edge of `size` pixels, scaled to what the classifier saw."""
    seen = AutoImageProcessor.from_pretrained(folder)
    return RTDetrImageProcessor(
        size={"shortest_edge": size, "longest_edge": size}, do_normalize=True, image_mean=seen.image_mean,
        image_std=seen.image_std,
    )  # fmt: skip


if __name__ == "__main__":
    main()
