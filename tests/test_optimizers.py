"""Optimiser plugs: every trainable parameter once, with the learning rate and decay it should have."""

from collections import Counter

import pytest
import torch
import transformers

from hf_tuner import catalog
from hf_tuner.errors import UsageError
from hf_tuner.optimizers import _groups

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

FOUND = catalog.names("optimizers")
RATE, DECAY = 1e-3, 0.01


def bert(layers=3):
    """A tiny BERT classifier."""
    config = transformers.BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4,
                                     intermediate_size=64, num_labels=3)  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def lora(**settings):
    """The same with LoRA on its attention and the head trained in full."""
    import peft

    config = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=["classifier"], **settings)
    return peft.get_peft_model(bert(), config)


def groups(name, model, **settings):
    """Groups of a plug, and for each parameter name its (rate, decay)."""
    module = catalog.load("optimizers", name)
    config = module.Config(**settings) if hasattr(module, "Config") else None
    made = module.groups(model, config, RATE, DECAY)
    names = {id(p): n for n, p in model.named_parameters()}
    return made, {names[id(p)]: (g["lr"], g["weight_decay"]) for g in made for p in g["params"]}


def test_the_folder_holds_what_is_promised():
    assert set(FOUND) >= {"adamw", "layerwise-decay", "lora-plus"}


@pytest.mark.parametrize("name", FOUND)
def test_every_trainable_parameter_is_in_one_group_and_can_be_stepped(name):
    model = lora()
    made, _ = groups(name, model)
    count = Counter(id(p) for g in made for p in g["params"])
    assert count == Counter(id(p) for p in model.parameters() if p.requires_grad)
    optimizer = torch.optim.AdamW(made)
    ids = torch.randint(0, 100, (2, 5))
    model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("name", FOUND)
def test_frozen_parameters_are_left_out(name):
    model = lora()
    for n, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and "layer.0" not in n)
    _, found = groups(name, model)
    assert found
    assert not any("layer.0" in n for n in found)


def test_only_matrices_decay():
    _, found = groups("adamw", bert())
    assert {rate for rate, _ in found.values()} == {RATE}
    assert found["bert.encoder.layer.0.attention.self.query.weight"][1] == DECAY
    assert found["classifier.weight"][1] == DECAY
    plain = {n for n, (_, decay) in found.items() if decay == 0}
    assert plain == {n for n in found if n.endswith("bias") or "LayerNorm" in n}


def test_learned_scales_do_not_decay():
    import peft

    config = peft.IA3Config(target_modules=["query"], feedforward_modules=[], modules_to_save=["classifier"])
    _, found = groups("adamw", peft.get_peft_model(bert(), config))
    assert all(found[n][1] == 0 for n in found if "ia3_l" in n)
    assert any("ia3_l" in n for n in found)
    _, found = groups("adamw", lora(use_dora=True))
    assert all(found[n][1] == 0 for n in found if "magnitude" in n)
    assert not _groups.decays("conv.lora_magnitude_vector.default.weight", torch.ones(1, 8, 1, 1))


def test_a_shared_parameter_is_in_one_group():
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16)
    made, _ = groups("adamw", transformers.GPT2LMHeadModel(config))
    assert max(Counter(id(p) for g in made for p in g["params"]).values()) == 1


def test_the_rate_falls_towards_the_embeddings():
    _, found = groups("layerwise-decay", bert(), decay=0.5)
    rates = {n: rate for n, (rate, _) in found.items()}
    assert rates["classifier.weight"] == rates["bert.pooler.dense.weight"] == RATE
    for layer in range(3):
        assert rates[f"bert.encoder.layer.{layer}.output.dense.weight"] == pytest.approx(RATE * 0.5 ** (3 - layer))
    assert rates["bert.embeddings.word_embeddings.weight"] == pytest.approx(RATE * 0.5**4)


@pytest.mark.parametrize(
    "config, auto, name",
    [
        (transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16, num_labels=3),
         "GPT2ForSequenceClassification", "transformer.h.{}.mlp.c_fc.weight"),
        (transformers.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
         "DistilBertForSequenceClassification", "distilbert.transformer.layer.{}.ffn.lin1.weight"),
        (transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                                image_size=16, patch_size=8), "ViTForImageClassification", None),
        (transformers.LlamaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  intermediate_size=64, pad_token_id=0), "LlamaForSequenceClassification",
         "model.layers.{}.mlp.up_proj.weight"),
    ],
)  # fmt: skip
def test_blocks_are_found_in_other_families(config, auto, name):
    _, found = groups("layerwise-decay", getattr(transformers, auto)(config), decay=0.5)
    assert {round(rate / RATE, 6) for rate, _ in found.values()} == {1.0, 0.5, 0.25, 0.125}
    for layer in range(2 if name else 0):
        assert found[name.format(layer)][0] == pytest.approx(RATE * 0.5 ** (2 - layer))


def test_lora_plus_parts_a_and_b_and_leaves_the_head():
    _, found = groups("lora-plus", lora(), ratio=16)
    rates = {n: rate for n, (rate, _) in found.items()}
    assert {r for n, r in rates.items() if "lora_B" in n} == {4 * RATE}
    assert {r for n, r in rates.items() if "lora_A" in n} == {RATE / 4}
    assert {r for n, r in rates.items() if "classifier" in n} == {RATE}


def test_plugs_refuse_models_without_their_parts():
    with pytest.raises(UsageError, match="needs LoRA"):
        groups("lora-plus", bert())
    with pytest.raises(UsageError, match="no numbered blocks"):
        groups("layerwise-decay", torch.nn.Sequential(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("name, settings", [("layerwise-decay", {"decay": 0.0}), ("lora-plus", {"ratio": 0.5})])
def test_settings_that_cannot_work_are_refused(name, settings):
    with pytest.raises(ValueError, match="expected"):
        catalog.load("optimizers", name).Config(**settings)
