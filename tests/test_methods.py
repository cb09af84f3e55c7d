"""Every method adapts, trains, keeps float32, and is the same model again after saving and loading."""

import dataclasses
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

from hf_tuner import catalog, flags
from hf_tuner.config import Targets
from hf_tuner.errors import UsageError
from hf_tuner.methods import _peft
from hf_tuner.models.load import settle_quantized

pytestmark = [  # warnings that peft and torch give on sound use, and that nobody here can act on
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type .*LayerNorm:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:lora with eva initialization used with low_cpu_mem_usage=False:UserWarning"),
]

EXPECTED = {
    "full", "lora", "dora", "qlora", "ia3", "adalora", "vera", "lokr", "loha", "oft", "miss", "shira", "ln-tuning",
    "prompt", "p-tuning", "prefix", "peft", "head-only", "bitfit", "last-n-layers", "lp-ft", "gradual",
}  # fmt: skip
FOUND = catalog.names("methods")
PLAIN = [name for name in FOUND if name != "qlora"]
SMALL = {"miss": {"r": 8}, "shira": {"r": 4}, "last-n-layers": {"n": 1}, "prompt": {"num_virtual_tokens": 4}}


def tiny(seed: int = 0, dtype: torch.dtype = torch.float32) -> transformers.PreTrainedModel:
    """A BERT of 32 features and 2 blocks for 3 classes."""
    transformers.set_seed(seed)
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, num_labels=3, pad_token_id=0, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0)  # fmt: skip
    return transformers.BertForSequenceClassification(config).to(dtype)


def targets_of(model: transformers.PreTrainedModel, head: tuple[str, ...] = ("classifier", "bert.pooler")) -> Targets:
    """The layers of the tiny BERT, by their place."""
    linears = tuple(n for n, m in model.named_modules() if hasattr(m, "in_features") and ".encoder." in n)
    return Targets(
        selected=linears,
        linears=linears,
        feedforward=tuple(n for n in linears if n.endswith("output.dense") and ".attention." not in n),
        norms=tuple(n for n, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)),
        layers=("bert.encoder.layer.0", "bert.encoder.layer.1"),
        head=head,
    )


def batch() -> dict[str, torch.Tensor]:
    """Six rows of nine tokens."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(1, 100, (6, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 2, 0, 1, 2])}


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Logits [6, 3] in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return model(**batch()).logits


def train(model: torch.nn.Module, steps: int = 1) -> None:
    """A few AdamW steps on one batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        model(**batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def made(name: str, dtype: torch.dtype = torch.float32, **settings: object) -> SimpleNamespace:
    """A method's module, its settings and the tiny model it adapted."""
    module = catalog.load("methods", name)
    config = module.Config(**{**SMALL.get(name, {}), **settings})
    base = tiny(dtype=dtype)
    targets = targets_of(base)
    transformers.set_seed(1)
    return SimpleNamespace(module=module, config=config, targets=targets, model=module.adapt(base, config, targets))


def saved_and_reloaded(given: SimpleNamespace, folder: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Save as a run does, then load on a clean base with another random state."""
    given.model.save_pretrained(folder, **({"save_embedding_layers": False} if given.module.SAVES == "adapter" else {}))
    if hasattr(given.module, "finish"):
        given.module.finish(given.model, given.config, folder)
    transformers.set_seed(99)
    if given.module.SAVES == "model":
        return transformers.BertForSequenceClassification.from_pretrained(folder)
    clean = tiny(dtype=dtype)
    transformers.set_seed(123)
    return _peft.reload(clean, str(folder))


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the head that is used (not to peft's frozen copy)."""
    return ("classifier." in name or ".pooler." in name) and ".original_module." not in name


def test_the_folder_holds_what_is_promised() -> None:
    assert set(FOUND) >= EXPECTED


@pytest.mark.parametrize("name", FOUND)
def test_it_says_what_it_is(name: str) -> None:
    module = catalog.load("methods", name)
    assert catalog.summary("methods", name).startswith(f"{name}: ")
    assert module.SAVES in ("adapter", "model")
    shared = {f.name for f in flags.run_flags()} | {f.name for f in flags.training_flags()} | {"config"}
    for field in dataclasses.fields(module.Config):
        assert field.metadata["help"]
        assert field.name not in shared, f"--{field.name} means something else already"


@pytest.mark.parametrize("name", PLAIN)
def test_what_should_move_moves_and_nothing_else(name: str) -> None:
    given = made(name)
    before = {n: p.detach().clone() for n, p in given.model.named_parameters()}
    trains = {n for n, p in given.model.named_parameters() if p.requires_grad}
    train(given.model, steps=2)  # what stands behind a zero start, such as LoRA's A, moves in the second step only
    moved = {n for n, p in given.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= trains
    assert {n for n in before if is_head(n)} <= moved
    assert any(not is_head(n) for n in moved) == (name != "head-only")


@pytest.mark.parametrize("name", PLAIN)
def test_reload_gives_exactly_the_same_logits(name: str, tmp_path: Path) -> None:
    given = made(name)
    start = logits(given.model)
    train(given.model, steps=2)
    expected = logits(given.model)
    assert not torch.equal(start, expected)
    assert torch.equal(logits(saved_and_reloaded(given, tmp_path)), expected)


@pytest.mark.parametrize("name", [n for n in PLAIN if catalog.load("methods", n).SAVES == "adapter"])
def test_on_a_half_precision_base_what_trains_is_float32_and_survives(name: str, tmp_path: Path) -> None:
    if name == "bitfit":
        with pytest.raises(UsageError, match="--dtype float32"):
            made(name, torch.bfloat16)
        return
    given = made(name, torch.bfloat16)
    assert {p.dtype for p in given.model.parameters() if p.requires_grad} == {torch.float32}
    assert given.model.get_base_model().bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    train(given.model, steps=2)
    expected = logits(given.model)
    assert torch.equal(logits(saved_and_reloaded(given, tmp_path, torch.bfloat16)), expected)


@pytest.mark.parametrize("name", FOUND)
def test_learning_rates_are_sane(name: str) -> None:
    module = catalog.load("methods", name)
    full = catalog.load("methods", "full").learning_rate
    for parameters in (4_000_000, 22_700_000, 110_000_000, 7_000_000_000):
        rate = module.learning_rate(parameters)
        assert 1e-6 < rate <= 2e-2
        assert rate > full(parameters) if module.SAVES == "adapter" else rate == full(parameters)


def test_the_head_is_wrapped_once_when_its_parts_are_named_too() -> None:
    model = tiny()
    module = catalog.load("methods", "lora")
    adapted = module.adapt(
        model, module.Config(), targets_of(model, ("classifier", "bert.pooler", "bert.pooler.dense"))
    )
    copies = [n for n, _ in adapted.named_parameters() if "modules_to_save" in n]
    assert len(copies) == 4
    assert all(n.count("modules_to_save") == 1 for n in copies)


@pytest.mark.parametrize("start", ["gaussian", "pissa", "pissa_niter_16", "olora", "orthogonal", "eva"])
def test_lora_starts_leave_the_function_as_it_was(start: str) -> None:
    given = made("lora", r=4, init_lora_weights=start)
    assert torch.allclose(logits(given.model), logits(tiny()), atol=1e-6)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora"])
def test_lora_that_changed_its_base_is_saved_for_the_original_one(start: str, rslora: bool, tmp_path: Path) -> None:
    given = made("lora", r=4, init_lora_weights=start, use_rslora=rslora, lora_dropout=0.0)
    train(given.model, steps=3)
    reloaded = saved_and_reloaded(given, tmp_path)
    assert torch.allclose(logits(reloaded), logits(given.model), atol=1e-5)
    with reloaded.disable_adapter():
        assert torch.equal(logits(reloaded), logits(tiny()))


def test_lora_that_changed_its_base_keeps_patterns(tmp_path: Path) -> None:
    given = made(
        "lora", r=4, init_lora_weights="pissa", rank_pattern={"layer.1.*query": 8}, alpha_pattern={"layer.0.*key": 2}
    )
    train(given.model)
    assert torch.allclose(logits(saved_and_reloaded(given, tmp_path)), logits(given.model), atol=1e-5)


def test_eva_start_reads_the_rows() -> None:
    given = made("lora", r=4, init_lora_weights="eva")
    before = {n: p.detach().clone() for n, p in given.model.named_parameters() if ".lora_A." in n}
    given.module.initialise(given.model, given.config, lambda: iter([{**batch(), "row": torch.arange(6)}, batch()]))
    after = dict(given.model.named_parameters())
    assert all(not torch.equal(before[n], after[n]) for n in before)
    assert torch.allclose(logits(given.model), logits(tiny()), atol=1e-6)


def test_dora_learns_magnitudes() -> None:
    assert any("magnitude" in n for n, p in made("dora").model.named_parameters() if p.requires_grad)


def test_ia3_scales_the_inputs_of_closing_layers() -> None:
    shapes = {n: tuple(p.shape) for n, p in made("ia3").model.named_parameters() if "ia3_l" in n and ".layer.0." in n}
    assert len(shapes) == 6
    closing = [s for n, s in shapes.items() if ".output.dense." in n and ".attention." not in n]
    assert closing == [(1, 64)]
    assert all(s[1] == 1 for n, s in shapes.items() if "intermediate" in n)


def test_last_n_layers_frees_the_top_of_the_stack() -> None:
    free = {n for n, p in made("last-n-layers", n=1).model.named_parameters() if p.requires_grad}
    assert any(n.startswith("bert.encoder.layer.1.") for n in free)
    assert not any(n.startswith(("bert.encoder.layer.0.", "bert.embeddings.")) for n in free)
    with pytest.raises(UsageError, match="has 2 blocks"):
        made("last-n-layers", n=3)


def trainer(given: SimpleNamespace, folder: Path, steps: int) -> transformers.Trainer:
    """The Trainer on six rows, with the method's own callbacks."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=6, learning_rate=1e-2, report_to="none",
        use_cpu=True, disable_tqdm=True, save_strategy="no", lr_scheduler_type="constant")  # fmt: skip
    rows = batch()
    data = [{k: v[i] for k, v in rows.items()} for i in range(6)]
    return transformers.Trainer(
        model=given.model, args=arguments, train_dataset=data, callbacks=given.module.callbacks(given.config)
    )


class Watch(transformers.TrainerCallback):
    """Calls a function after every step."""

    def __init__(self, look) -> None:
        self.look = look

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self.look(state.global_step, model)


def test_gradual_thaws_from_the_top(tmp_path: Path) -> None:
    given = made("gradual", every=0.25)
    start = {n: p.detach().clone() for n, p in given.model.named_parameters()}
    parts = ("classifier.", "bert.encoder.layer.1.", "bert.encoder.layer.0.", "bert.embeddings.word")
    seen: dict[int, list[bool]] = {}

    def look(step: int, model: torch.nn.Module) -> None:
        moved = [n for n, p in model.named_parameters() if not torch.equal(p, start[n])]
        seen[step] = [any(n.startswith(part) for n in moved) for part in parts]

    run = trainer(given, tmp_path, 8)
    run.add_callback(Watch(look))
    run.train()
    assert seen[2] == [True, False, False, False]
    assert seen[4] == [True, True, False, False]
    assert seen[6] == [True, True, True, False]
    assert seen[8] == [True, True, True, True]


def test_adalora_takes_ranks_away_on_schedule(tmp_path: Path) -> None:
    given = made("adalora", init_r=4, target_r=2, tinit=0.1, tfinal=0.3)
    ranks: dict[int, int] = {}

    def look(step: int, model: torch.nn.Module) -> None:
        ranks[step] = sum(int((p != 0).sum()) for n, p in model.named_parameters() if ".lora_E." in n)

    run = trainer(given, tmp_path, 20)
    run.add_callback(Watch(look))
    run.train()
    layers = len(given.targets.selected)
    assert ranks[2] == 4 * layers
    assert 2 * layers < ranks[7] < 4 * layers
    assert ranks[14] == ranks[20] == 2 * layers
    expected = logits(given.model)
    assert torch.equal(logits(saved_and_reloaded(given, tmp_path / "saved")), expected)


def test_adalora_keeps_its_factors_orthogonal_for_any_loss(tmp_path: Path) -> None:
    distances = []
    for weight in (0.0, 5.0):
        given = made("adalora", init_r=6, target_r=4, orth_reg_weight=weight)
        trainer(given, tmp_path, 10).train()
        distances.append(given.module.orthogonality(given.model).item())
    assert distances[1] < distances[0]


@pytest.mark.parametrize(
    "kind, settings",
    [("hra", {"r": 4}), ("randlora", {"r": 4}), ("fourierft", {"n_frequency": 20}), ("delora", {"r": 4}),
     ("prefix_tuning", {"num_virtual_tokens": 4}), ("VeRA", {"r": 8})],
)  # fmt: skip
def test_other_tuners_by_name(kind: str, settings: dict, tmp_path: Path) -> None:
    given = made("peft", peft_type=kind, peft_kwargs=settings)
    train(given.model, steps=2)
    expected = logits(given.model)
    assert torch.equal(logits(saved_and_reloaded(given, tmp_path)), expected)


@pytest.mark.parametrize(
    "name, settings, says",
    [
        ("lora", {"r": 0}, "at least 1"),
        ("lora", {"lora_dropout": 1.5}, "below 1"),
        ("lora", {"r": 3, "init_lora_weights": "orthogonal"}, "even"),
        ("lora", {"use_rslora": True, "init_lora_weights": "pissa", "rank_pattern": {"key": 2}}, "leave out one"),
        ("qlora", {"bits": 3}, "4 or 8"),
        ("adalora", {"init_r": 4, "target_r": 8}, "not below init_r"),
        ("adalora", {"tinit": 0.6, "tfinal": 0.5}, "below 1"),
        ("oft", {"r": 4}, "exactly one"),
        ("gradual", {"every": 0.0}, "above 0"),
        ("last-n-layers", {"n": 0}, "at least 1"),
        ("peft", {"peft_type": "poly"}, "task id"),
        ("peft", {"peft_kwargs": {"target_modules": "query"}}, "--target-modules"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        catalog.load("methods", name).Config(**settings)


@pytest.mark.parametrize(
    "name, settings, says",
    [
        ("peft", {"peft_type": "hiraa"}, 'did you mean "hira"'),
        ("peft", {"peft_kwargs": {"rr": 8, "hira_dropuot": 0.1}}, 'no setting "rr"'),
        ("shira", {"r": 32}, "peft cannot adapt"),
        ("miss", {"r": 64}, "peft cannot adapt"),
    ],
)
def test_what_the_model_cannot_take_is_a_usage_error(name: str, settings: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        made(name, **settings)


@pytest.mark.parametrize(
    "name, change, says",
    [
        ("lora", {"selected": ()}, "--target-modules"),
        ("ln-tuning", {"norms": ()}, "no normalisation layers"),
        ("head-only", {"head": ()}, "no head"),
        ("gradual", {"layers": ()}, "not a stack"),
    ],
)
def test_a_model_without_the_parts_is_a_usage_error(name: str, change: dict, says: str) -> None:
    module = catalog.load("methods", name)
    model = tiny()
    with pytest.raises(UsageError, match=says):
        module.adapt(model, module.Config(), dataclasses.replace(targets_of(model), **change))


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", [4, 8])
def test_qlora_trains_beside_a_quantised_base(bits: int, tmp_path: Path) -> None:
    module, head = catalog.load("methods", "qlora"), ("classifier", "bert.pooler")
    config = module.Config(bits=bits, r=4)
    options = {"quantization_config": module.quantization(config, head)}
    tiny().save_pretrained(tmp_path / "base")

    def base() -> transformers.PreTrainedModel:
        model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base", **options)
        settle_quantized(model)
        return model

    model = module.adapt(base(), config, targets_of(base(), head))
    query = model.get_base_model().bert.encoder.layer[0].attention.self.query.base_layer
    assert type(query).__name__ == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, steps=2)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n in before if is_head(n)} <= moved and any("lora_A" in n for n in moved)
    assert all("lora_" in n or is_head(n) for n in moved)
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    transformers.set_seed(99)
    assert torch.equal(logits(_peft.reload(base(), str(tmp_path / "adapter"))), expected)
    train(model, steps=1)  # also after a prediction
