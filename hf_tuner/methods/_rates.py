"""Default learning rates by method and model size.

The rate of full fine-tuning falls with the square root of the parameter count (5e-5 at MiniLM's 23 M, 2e-5 at
BERT-base, 1e-5 at billions), as published recipes do. Low-rank adapters want more than that, up to ten times at
billions ("LoRA Without Regret"; arXiv 2602.04998), methods with few or multiplicative parameters more still. Rates
are for a head that starts from the probe (LP-FT), whose work a high rate undoes. Measured on banking77 with MiniLM, one
epoch, probe 93.1 %: full at 2e-4 92.4 %, at 1e-4 93.0 %, at 5e-5 93.3 %, at 3e-5 93.3 %; LoRA at 5e-4 92.6 %, at 2e-4
93.0 %. A head that starts from noise has further to go: FROM_NOISE in training/arguments.py.
"""

MINILM = 22.7e6


def full_rate(parameters: int) -> float:
    """Learning rate for training every weight of a model with so many parameters."""
    return _round(min(2e-4, max(1e-5, 5e-5 * (MINILM / max(parameters, 1)) ** 0.5)))


def adapter_rate(parameters: int) -> float:
    """Learning rate for low-rank adapters."""
    return _round(2.5e-4 * (MINILM / max(parameters, 1)) ** 0.2)


def few_weights_rate(parameters: int) -> float:
    """Learning rate for methods that train vectors only: scales, biases, norms, prompts."""
    return min(1e-2, 100 * full_rate(parameters))


def scaling_rate(parameters: int) -> float:
    """Learning rate for methods that scale features (banking77, MiniLM, ia3: 1e-3 92.0 %, 5e-3 90.2 %)."""
    return _round(min(1e-2, 20 * full_rate(parameters)))


def _round(rate: float) -> float:
    return float(f"{rate:.1e}")
