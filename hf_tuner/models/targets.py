"""Where in a model a method may work, found from the model's structure: no table of architectures.

A model is a backbone and a head. The backbone holds blocks (the transformer layers), the blocks hold attention and a
feed-forward part. All of it is found by module class and position, so an architecture nobody has heard of works too.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.pytorch_utils import Conv1D

from hf_tuner import catalog
from hf_tuner.config import Targets
from hf_tuner.errors import UsageError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ATTENTION = re.compile(r"Attention(?!.*(Layer|Block)$)")
"""Class names of attention modules, but not of blocks that are named after theirs (JambaAttentionDecoderLayer)."""
NOT_FEEDFORWARD = re.compile(rf"{ATTENTION.pattern}|Norm")
"""Some norms have linear layers of their own (A.X K2)."""
MAMBA = re.compile(r"Mamba|FalconH1Mixer")
"""Class names of state-space mixers; peft refuses their projections by the type of the model."""
READ_BY_MAMBA = ("dt_proj", "out_proj")
"""State-space mixers hand the weights of these to a kernel; an adapter around them would stay without effect."""
TIMM = "timm."
"""Where the classes of timm's models come from."""
LISTS, STACKS = (nn.ModuleList,), (nn.ModuleList, nn.Sequential)
"""What holds the blocks of a model; timm calls most of its blocks in a row."""
REGEX_SIGNS = frozenset("*?[](|^$\\")
SYNONYMS = (
    ("query", "q_proj", "q_lin", "query_proj"),
    ("key", "k_proj", "k_lin", "key_proj"),
    ("value", "v_proj", "v_lin", "value_proj"),
    ("attention.output.dense", "o_proj", "out_proj", "out_lin"),
    ("intermediate.dense", "fc1", "lin1"),
    ("output.dense", "fc2", "lin2"),
)
"""One projection, the names it has had. transformers 5 renamed many; users and old recipes have not."""
EXISTING_NAMES = 30
"""At most so many names are listed in an error."""


def find_targets(model: Any, head: tuple[str, ...], wanted: str | Sequence[str] | None = "all-linear") -> Targets:
    """Sort the modules of a bare model into what methods work on.

    `head` names the modules that are trained in full; nothing in or below them is a target. `wanted` is "all-linear"
    (the linear layers of the blocks), "attention", "mlp", "language", "vision" or "both" (the part of them that reads or
    writes text, that sees, or both), "none", leaf names ("q_proj,v_proj" or a list; old names are understood), or one regular
    expression over full names. None means: whatever "all-linear" finds, even nothing.

    Raises UsageError when a name, the expression or the group matches nothing.
    """
    linears = _wrappable(model, [n for n, module in _backbone_modules(model, head) if _is_linear(model, n, module)])
    layers = find_layers(model)
    return Targets(
        selected=_select(model, head, linears, layers, wanted),
        linears=linears,
        feedforward=_feedforward(model, linears, layers),
        norms=tuple(name for name, module in _backbone_modules(model, head) if is_norm(module)),
        layers=layers,
        head=tuple(head),
    )


def backbone_name(model: Any) -> str:
    """Attribute that holds the backbone; empty when the model is one (or does not keep its own apart)."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if prefix and isinstance(getattr(model, prefix, None), nn.Module) else ""


def is_within(name: str, parents: Sequence[str]) -> bool:
    """Whether a module or parameter is one of `parents`, or below one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def is_two_towers(model: Any) -> bool:
    """Whether a model gives embeddings for pictures and for texts in one space, each by a tower of its own (CLIP)."""
    return hasattr(model, "get_image_features") and hasattr(model, "get_text_features")


def is_norm(module: nn.Module) -> bool:
    """A normalisation layer, and no module that merely has one in its name."""
    return "Norm" in type(module).__name__ and not _holds(module, (nn.Linear, *CONVOLUTIONS))


def find_layers(model: Any) -> tuple[str, ...]:
    """Names of the transformer blocks, first to last; encoder blocks come before decoder blocks.

    A text model that can also see keeps its vision tower out of this list; of two towers that give embeddings for either,
    both are in it, one of convolutions too.
    """
    if is_timm(model):
        return _timm_layers(model)
    stacks = _parted(model)
    both = is_two_towers(model)
    if getattr(model, "main_input_name", None) == "input_ids" and not both:
        stacks = [s for s in stacks if "text" in s[1]] or stacks
    lists = [blocks for blocks, _ in stacks]
    with_linears = [b for b in lists if any(_holds(model.get_submodule(name), (nn.Linear, Conv1D)) for name in b)]
    return tuple(name for group in _side_by_side((not both and with_linears) or lists) for name in group)


def is_timm(model: Any) -> bool:
    """Whether the backbone is a model of timm in transformers' wrapper."""
    return type(model.get_submodule(backbone_name(model))).__module__.startswith(TIMM)


def _timm_layers(model: Any) -> tuple[str, ...]:
    """Blocks of a model of timm in their order, without what stands beside or in its classifier."""
    root = backbone_name(model)
    head = timm_classifiers(model)
    stacks = _stacks(model.get_submodule(root), root, ("image",), STACKS)
    return tuple(
        n for blocks, _ in stacks for n in blocks if not any(is_within(h, [n]) or is_within(n, [h]) for h in head)
    )


def timm_classifiers(model: Any) -> tuple[str, ...]:
    """Names of the layers that give the classes of a model of timm; the distilled kind has two."""
    given = model.get_submodule(backbone_name(model)).get_classifier()
    last = given if isinstance(given, tuple | list) else (given,)
    return tuple(n for n, m in model.named_modules() if any(m is one for one in last))


def parts(model: Any) -> dict[str, tuple[str, ...]]:
    """Names of the blocks that read or write text ("language"), and of those that only see ("vision")."""
    found: dict[str, tuple[str, ...]] = {"language": (), "vision": ()}
    for blocks, reads in _parted(model):
        part = "language" if "text" in reads else "vision" if "image" in reads or "video" in reads else ""
        if part:  # what hears is neither
            found[part] = (*found[part], *blocks)
    return found


def _parted(model: Any) -> list[tuple[list[str], Any]]:
    """Every outermost list of blocks of the backbone, with what it reads.

    What transformers calls a model's encoder of images does see, whatever the sub-model says (Qwen2.5-VL's claims text).
    """
    root = backbone_name(model)
    eyes = _eyes(model)
    stacks = _stacks(model.get_submodule(root), root, _reads(model, "text"))
    return [(blocks, ("image",) if is_within(blocks[0], eyes) else reads) for blocks, reads in stacks]


def _eyes(model: Any) -> tuple[str, ...]:
    """Name of the sub-model that transformers calls the encoder of images and of nothing else; empty when there is none."""
    try:
        found = model.get_encoder(modality="image")
        if found is model.get_encoder():
            return ()
    except (AttributeError, TypeError):  # no model of transformers, or one whose encoder is that of its texts
        return ()
    return tuple(name for name, module in model.named_modules() if name and module is found)


def _stacks(
    module: nn.Module, path: str, reads: Any, kinds: tuple[type[nn.Module], ...] = LISTS
) -> Iterator[tuple[list[str], Any]]:
    """Every outermost list of blocks below a module, with the modalities of the sub-model that it is part of."""
    for child_name, child in module.named_children():
        name = f"{path}.{child_name}" if path else child_name
        blocks = _blocks(child, name, kinds) if isinstance(child, kinds) else []
        if blocks:
            yield blocks, reads
        else:
            yield from _stacks(child, name, _reads(child, reads), kinds)


def _reads(module: Any, otherwise: Any) -> Any:
    return getattr(module, "input_modalities", None) or otherwise


def _blocks(stack: nn.Module, path: str, kinds: tuple[type[nn.Module], ...] = LISTS) -> list[str]:
    """Blocks of one list. Lists of lists (Funnel), stages and shared groups (Swin, ALBERT) are opened."""
    blocks: list[str] = []
    for index, child in stack._modules.items():
        name = f"{path}.{index}"
        inner = ("", child) if isinstance(child, kinds) and _only_holds(child) else _inner_stack(child, kinds)
        if inner is not None:
            blocks += _blocks(inner[1], f"{name}.{inner[0]}" if inner[0] else name, kinds)
        elif next(child.children(), None) is not None and _holds(child, (nn.Linear, Conv1D, *CONVOLUTIONS)):
            blocks.append(name)
    return blocks


def _only_holds(stack: nn.Module) -> bool:
    """Whether what stands in a row is made of parts itself; a convolution or a norm among them makes the row a block."""
    leaves = [
        m for m in stack.children() if next(m.children(), None) is None and next(m.parameters(), None) is not None
    ]
    return isinstance(stack, nn.ModuleList) or not leaves


def _inner_stack(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> tuple[str, nn.Module] | None:
    """The list that holds all attention of a module, if its members are alike: then they are the blocks."""
    attention = [name for name, child in module.named_modules() if name and ATTENTION.search(type(child).__name__)]
    for name, child in module.named_modules():
        alike = isinstance(child, kinds) and len({type(c) for c in child.children()}) == 1
        # Two steps deeper: a list of bare attention modules is a part of a block, not a list of blocks.
        if alike and attention and all(re.match(rf"{re.escape(name)}\.\d+\.", a) for a in attention):
            return name, child
    return None


def _side_by_side(lists: list[list[str]]) -> Iterator[list[str]]:
    """Merge lists of equal length under one parent: XLM keeps attention and feed-forward layers in two."""
    groups: dict[tuple[str, int], list[list[str]]] = {}
    for blocks in lists:
        parent = blocks[0].rpartition(".")[0].rpartition(".")[0]
        groups.setdefault((parent, len(blocks)), []).append(blocks)
    for group in groups.values():
        yield [name for depth in zip(*group, strict=True) for name in depth]


def _backbone_modules(model: Any, head: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """Modules of the backbone; the head, a language model's output layer and poolers (which belong to its side) left out."""
    root = backbone_name(model)
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        inside = not root or is_within(name, [root])
        if name and inside and module is not output and not is_within(name, head) and "pooler" not in name.split("."):
            yield name, module


def _is_linear(model: Any, name: str, module: nn.Module) -> bool:
    """A linear layer that is called, so that an adapter around it has an effect."""
    if not isinstance(module, nn.Linear | Conv1D) and type(module).__name__ not in ("Linear4bit", "Linear8bitLt"):
        return False
    parent, _, leaf = name.rpartition(".")
    if isinstance(model.get_submodule(parent), nn.MultiheadAttention):
        return False
    if leaf == "qkv" and getattr(model.get_submodule(parent), "q_bias", None) is not None:
        return False  # timm's BEiT, EVA and Swin v2 hand its weights to a kernel, with biases of their own
    return not (leaf in READ_BY_MAMBA and MAMBA.search(type(model.get_submodule(parent)).__name__))


def _wrappable(model: Any, linears: list[str]) -> tuple[str, ...]:
    """Without the layers that peft takes for experts of a mixture, going by the ends of their names.

    peft turns `mlp.shared_experts.down_proj` of DeepSeek, Qwen-MoE and Hunyuan into a target on the stacked weights of
    all routed experts: an adapter where none was asked for, and none where it was (peft 0.21, for LoRA).
    """
    if get_checkpoint_conversion_mapping(getattr(getattr(model, "config", None), "model_type", None)) is None:
        return tuple(linears)  # peft looks here too: nothing was renamed in this architecture
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=linears)
    convert_peft_config_for_transformers(config, model, None)
    return tuple(n for n in linears if n in (config.target_modules or ()))


def _holds(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    return any(isinstance(m, kinds) for m in module.modules())


def _inside(model: Any, name: str, kind: re.Pattern[str]) -> bool:
    """Whether some module around this one is of a class whose name matches."""
    parts = name.split(".")
    return any(kind.search(type(model.get_submodule(".".join(parts[:i]))).__name__) for i in range(1, len(parts)))


def _feedforward(model: Any, linears: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """Per block, the widest (then last) linear that leads back to the width another one started from."""
    found = []
    for layer in layers:
        mlp = [n for n in linears if is_within(n, [layer]) and not _inside(model, n, NOT_FEEDFORWARD)]
        sizes = {n: _sizes(model.get_submodule(n)) for n in mlp}
        down = [n for i, n in enumerate(mlp) if any(sizes[up][0] == sizes[n][1] for up in mlp[:i])]
        if down:
            widest = max(sizes[n][0] for n in down)
            found.append([n for n in down if sizes[n][0] == widest][-1])
    return tuple(found)


def _sizes(linear: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    return (linear.nx, linear.nf) if isinstance(linear, Conv1D) else (linear.in_features, linear.out_features)


def _select(
    model: Any, head: Sequence[str], linears: tuple[str, ...], layers: Sequence[str], wanted: str | Sequence[str] | None
) -> tuple[str, ...]:
    """Resolve `wanted` to full names. Raises UsageError when any part of it matches nothing."""
    convolutions = {
        n: m for n, m in _backbone_modules(model, head) if isinstance(m, CONVOLUTIONS) and not _pads_itself(m)
    }
    adaptable = {*linears, *convolutions}
    everything = [name for name, _ in model.named_modules() if name in adaptable]
    plain = [n for n, m in convolutions.items() if m.groups == 1 and (not layers or is_within(n, layers))]
    blocks = tuple(n for n in linears if is_within(n, layers)) or tuple(plain) or linears
    if wanted is None:
        return blocks
    if wanted == "none":
        return ()
    groups = {
        "all-linear": lambda: blocks,
        "attention": lambda: tuple(n for n in blocks if _inside(model, n, ATTENTION)),
        "mlp": lambda: tuple(n for n in blocks if not _inside(model, n, ATTENTION)),
        "language": lambda: _below(parts(model)["language"], linears, convolutions),
        "vision": lambda: _below(parts(model)["vision"], linears, convolutions),
        "both": lambda: _below((*parts(model)["language"], *parts(model)["vision"]), linears, convolutions),
    }
    if isinstance(wanted, str) and wanted in groups:
        return groups[wanted]() or _nothing(f'"{wanted}" finds no layer that an adapter can wrap', None, everything)
    if isinstance(wanted, str) and REGEX_SIGNS & set(wanted):
        return _matching(wanted, everything)
    names = wanted.split(",") if isinstance(wanted, str) else wanted
    return _named([n.strip() for n in names if n.strip()], everything)


def _pads_itself(convolution: Any) -> bool:
    """Whether a convolution pads what it gets (TensorFlow's way, in timm): an adapter beside it gives another size."""
    kind = next(kind for kind in CONVOLUTIONS if isinstance(convolution, kind))
    grows = any(size > 1 for size in convolution.kernel_size)
    return (
        type(convolution).forward is not kind.forward
        and grows
        and convolution.padding == (0,) * len(convolution.kernel_size)
    )


def _below(layers: Sequence[str], linears: Sequence[str], convolutions: Mapping[str, Any]) -> tuple[str, ...]:
    """The linear layers in some blocks; the plain convolutions where there are none."""
    plain = (n for n, m in convolutions.items() if m.groups == 1)
    return tuple(n for n in linears if is_within(n, layers)) or tuple(n for n in plain if is_within(n, layers))


def _matching(pattern: str, everything: list[str]) -> tuple[str, ...]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--target-modules {pattern}: not a regular expression ({error})") from error
    found = tuple(n for n in everything if compiled.fullmatch(n))
    return found or _nothing(f"{pattern} matches no layer (it must match a full name, as .*q_proj)", None, everything)


def _named(names: Sequence[str], everything: list[str]) -> tuple[str, ...]:
    found: set[str] = set()
    for name in names:
        matches = [n for n in everything if _ends(n, name)] or [n for n in everything if name in _other_names(n)]
        if not matches:
            _nothing(f'no layer of the backbone is named "{name}"', name, everything)
        found.update(matches)
    return tuple(n for n in everything if n in found) or _nothing("no name given", None, everything)


def _ends(name: str, leaf: str) -> bool:
    return name == leaf or name.endswith(f".{leaf}")


def _other_names(name: str) -> set[str]:
    """What else a module may be called: the names of its group in SYNONYMS, and their leaves."""
    fits = [(len(synonym), group) for group in SYNONYMS for synonym in group if _ends(name, synonym)]
    if not fits:
        return set()
    # The longest fit decides: attention.output.dense also ends in output.dense, which is another projection.
    group = max(fits)[1]
    return {*group, *(synonym.rpartition(".")[2] for synonym in group)}


def _nothing(problem: str, name: str | None, everything: list[str]) -> tuple[str, ...]:
    counts = Counter(n.rpartition(".")[2] for n in everything)
    close = catalog.nearest(name, list(counts)) if name else None
    hint = f'; did you mean "{close}"?' if close else ""
    listed = ", ".join(f"{leaf} ({n})" for leaf, n in list(counts.items())[:EXISTING_NAMES])
    more = f", … {len(counts) - EXISTING_NAMES} more" if len(counts) > EXISTING_NAMES else ""
    existing = f"{listed}{more}" if listed else "no linear layer and no convolution in its backbone"
    raise UsageError(f"--target-modules: {problem}{hint}\nThis model has: {existing}")
