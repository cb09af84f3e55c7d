"""What the methods built on peft share: making the configuration, wrapping the model, float32 for all that trains."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.errors import UsageError

HALF = ("float16", "bfloat16")
TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "MTModel": "SEQ_2_SEQ_LM",
    "EncoderDecoderModel": "SEQ_2_SEQ_LM",
    "ForTextToText": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "ForMaskedLM": "FEATURE_EXTRACTION",
    "LMHeadModel": "CAUSAL_LM",
    "GenerationDecoder": "CAUSAL_LM",
    "Model": "FEATURE_EXTRACTION",
}


def target_option() -> Any:
    """The field `target_modules`, as every weight adapter has it."""
    return option(
        "all-linear",
        'Layers to adapt: "all-linear", "attention", "mlp", "language", "vision", "both", module names, or a regex.',
    )


def positive(**values: int) -> None:
    """Raise ValueError for a value that is not a whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")


def share(**values: float) -> None:
    """Raise ValueError for a value outside [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value!r}; expected a share of at least 0 and below 1, such as 0.05")


def options(config: Any, **changes: Any) -> dict[str, Any]:
    """The settings of a method as keyword arguments for peft: those that are set, without `target_modules`."""
    given = {k: v for k, v in asdict(config).items() if k != "target_modules"} | changes
    return {k: v for k, v in given.items() if v is not None}


def attach(model: Any, name: str, targets: Targets, **settings: Any) -> Any:
    """Wrap `model` in the peft configuration class `name`; the head is trained in full and saved with the adapter.

    `target_modules` defaults to the selected ones. No task type is given: peft would guess the head by its name.
    Raises UsageError when peft refuses the settings or a layer, or when half-precision weights would be trained.
    """
    import peft

    return attach_config(model, getattr(peft, name), targets, **{"target_modules": selected(targets), **settings})


def attach_config(model: Any, kind: Any, targets: Targets, **settings: Any) -> Any:
    """As `attach`, for a configuration class and exactly these settings."""
    import peft

    try:
        config = kind(modules_to_save=unmistaken(model, outermost(targets.head)) or None, **settings)
        adapted = share_heads(peft.get_peft_model(with_embeddings(model), config))
    except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as error:
        raise UsageError(f"peft cannot adapt {type(model).__name__} this way: {error}") from error
    return full_precision(lend_shapes(adapted))


def with_embeddings(model: Any) -> Any:
    """The model, with an empty answer to what its input embeddings are where it has none.

    peft 0.21 asks every model whose parts share weights for them; detectors share heads and embed no words.
    """
    import torch

    try:
        model.get_input_embeddings()
    except NotImplementedError:
        model.get_input_embeddings = torch.nn.Identity
    return model


def share_heads(model: Any) -> Any:
    """Make a head that stands at several places (one for all decoder layers) the same trained copy at each of them.

    peft wraps it where it is named; elsewhere the frozen original would go on to answer.
    """
    from peft.utils.other import ModulesToSaveWrapper

    def weights(module: Any) -> tuple[Any, ...]:
        return (type(module), *map(id, module.parameters()))

    wrappers = {weights(m.original_module): m for m in model.modules() if isinstance(m, ModulesToSaveWrapper)}
    for parent in [m for m in model.modules() if not isinstance(m, ModulesToSaveWrapper)]:
        for name, child in list(parent._modules.items()):
            wrapper = wrappers.get(weights(child)) if child is not None else None
            if wrapper is not None and len(weights(child)) > 1:
                setattr(parent, name, wrapper)
    return model


SHAPES = ("stride", "padding", "dilation", "kernel_size", "groups", "in_channels", "out_channels")


def lend_shapes(model: Any) -> Any:
    """Give peft's layers around convolutions the attributes of what they wrap, and return the model.

    MobileNetV2's padding reads the stride of the layer that it calls, which is the wrapper then (peft 0.21).
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else None
        for name in SHAPES if hasattr(base, "stride") else ():
            if not hasattr(module, name):
                setattr(module, name, getattr(base, name))
    return model


def selected(targets: Targets) -> list[str]:
    """Names of the modules to adapt. Raises UsageError when there are none."""
    if not targets.selected:
        raise UsageError(
            "no layer to adapt was found in this model; name some with --target-modules, or use --method full"
        )
    return list(targets.selected)


def outermost(names: Iterable[str]) -> list[str]:
    """Names that lie below no other: peft would wrap a module inside a wrapped one a second time."""
    names = list(dict.fromkeys(names))
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def unmistaken(model: Any, names: list[str]) -> list[str]:
    """Names of heads that peft, which matches by suffix, does not take for a list that ends alike and cannot be wrapped.

    LW-DETR and RF-DETR have `class_embed` and a list `model.enc_out_class_embed`: the first is given as peft's wrapper
    calls it.
    """
    from torch.nn import ModuleDict, ModuleList

    lists = [name for name, module in model.named_modules() if isinstance(module, ModuleList | ModuleDict)]
    return [f"base_model.model.{name}" if any(other.endswith(name) for other in lists) else name for name in names]


def task_type(model: Any) -> str:
    """peft's task type by the name of the model class; prompt methods cannot do without. Raises UsageError."""
    name, sees = type(model).__name__, getattr(model, "main_input_name", "") == "pixel_values"
    for ending, kind in TASK_TYPES.items():
        if name.endswith(ending) and not sees:
            # Gemma 3 and others that also see are called ForConditionalGeneration and have no encoder.
            decoder = kind == "SEQ_2_SEQ_LM" and not model.config.is_encoder_decoder
            if ending == "Model" and "image" in getattr(model, "input_modalities", ()):
                break
            return "CAUSAL_LM" if decoder else kind
    raise UsageError(f"prompt methods work on text models with a known head, not on {name}; use --method lora")


def full_precision(model: Any) -> Any:
    """Hold every trainable weight in float32 and return the model.

    peft does so for its own weights; whole modules that it copied (heads, norms) stay in the type of the base, where
    small updates round to nothing. Their copies are made float32 and cast what they are given. Raises UsageError
    when single weights inside half-precision layers are to be trained (biases).
    """
    from peft.tuners.ln_tuning.layer import LNTuningLayer
    from peft.utils.other import ModulesToSaveWrapper

    for module in list(model.modules()):
        if isinstance(module, ModulesToSaveWrapper):
            _float_copies(module.modules_to_save, back=False)
        elif isinstance(module, LNTuningLayer):
            _float_copies(module.ln_tuning_layers, back=True)
    half = [n for n, p in model.named_parameters() if p.requires_grad and str(p.dtype).removeprefix("torch.") in HALF]
    if half:
        raise UsageError(
            f"{half[0]} would be trained in half precision, where small updates are lost: use --dtype float32"
        )
    return model


def reload(base: Any, folder: str) -> Any:
    """Put a saved adapter on its base, for prediction, with the very weights that were saved.

    `PeftModel.from_pretrained` alone rounds the head to the type of a half-precision base.
    """
    import peft

    model = full_precision(lend_shapes(share_heads(peft.PeftModel.from_pretrained(with_embeddings(base), folder))))
    peft.set_peft_model_state_dict(model, peft.load_peft_weights(folder, device=str(base.device)))
    return model.eval()


def _float_copies(copies: Any, *, back: bool) -> None:
    """Make modules float32. They cast their inputs up, and with `back` their output to the type that came in."""
    import torch

    def is_half(value: Any) -> bool:
        return torch.is_tensor(value) and str(value.dtype).removeprefix("torch.") in HALF

    def cast_in(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        up = [a.float() if is_half(a) else a for a in args]
        return tuple(up), {k: v.float() if is_half(v) else v for k, v in kwargs.items()}

    def cast_out(module: Any, args: tuple, output: Any) -> Any:
        return output.to(module.given)

    def remember(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        module.given = args[0].dtype
        return cast_in(module, args, kwargs)

    for module in copies.values():
        if not any(is_half(p) for p in module.parameters()):
            continue
        module.float()
        module.register_forward_pre_hook(remember if back else cast_in, with_kwargs=True)
        if back:
            module.register_forward_hook(cast_out)
