"""`--target-modules`: what may be asked for, by which names, and what is said when it is not there."""

from collections import Counter

import pytest
import torch
from tiny_architectures import on_meta
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_tuner.errors import UsageError
from hf_tuner.models.head import head_modules, pooler_modules
from hf_tuner.models.targets import find_layers, find_targets


@pytest.fixture(scope="module")
def models():
    names = ("bert", "llama", "distilbert", "fnet", "squeezebert", "gpt2", "deepseek_v2")
    return {name: on_meta(name) for name in names}


def select(model, wanted):
    return find_targets(model, (*head_modules(model), *pooler_modules(model)), wanted).selected


def leaves(names):
    return Counter(name.rpartition(".")[2] for name in names)


def test_groups_part_the_linear_layers(models):
    llama = models["llama"]
    attention, mlp = select(llama, "attention"), select(llama, "mlp")
    assert leaves(attention) == {"q_proj": 2, "k_proj": 2, "v_proj": 2, "o_proj": 2}
    assert leaves(mlp) == {"gate_proj": 2, "up_proj": 2, "down_proj": 2}
    assert set(attention) | set(mlp) == set(select(llama, "all-linear")) == set(select(llama, None))
    assert select(llama, "none") == ()


def test_language_and_vision_part_a_model_that_sees_and_writes():
    from transformers import AutoModelForImageTextToText

    for architecture, language, vision in (
        ("blip", "text_decoder.bert.encoder.layer.", "vision_model.encoder.layers."),
        ("git", "git.encoder.layer.", "git.image_encoder.vision_model.encoder.layers."),
        ("llava", "model.language_model.layers.", "model.vision_tower.encoder.layers."),
    ):
        model = on_meta(architecture, auto=AutoModelForImageTextToText)
        writes, sees = select(model, "language"), select(model, "vision")
        assert writes and all(name.startswith(language) for name in writes), writes
        assert sees and all(name.startswith(vision) for name in sees), sees


def test_a_model_that_reads_texts_only_has_no_vision_to_adapt(models):
    assert select(models["llama"], "language") == select(models["llama"], "all-linear")
    with pytest.raises(UsageError, match='"vision" finds no layer that an adapter can wrap'):
        select(models["llama"], "vision")


def test_bert_attention_holds_its_output_projection(models):
    assert sum(name.endswith("attention.output.dense") for name in select(models["bert"], "attention")) == 2
    assert all(".attention." not in name for name in select(models["bert"], "mlp"))


@pytest.mark.parametrize("wanted", ["q_proj,v_proj", "v_proj, q_proj", ["q_proj", "v_proj"], ("q_proj", "v_proj")])
def test_names_may_be_a_list_or_separated_by_commas(models, wanted):
    assert leaves(select(models["llama"], wanted)) == {"q_proj": 2, "v_proj": 2}


@pytest.mark.parametrize(
    ("architecture", "wanted", "expected"),
    [
        ("llama", "query,value", {"q_proj": 2, "v_proj": 2}),
        ("bert", "q_proj,v_proj", {"query": 2, "value": 2}),
        ("bert", "q_lin", {"query": 2}),
        ("distilbert", "query,key,value", {"q_lin": 2, "k_lin": 2, "v_lin": 2}),
        ("distilbert", "dense", {"out_lin": 2, "lin1": 2, "lin2": 2}),
        ("llama", "dense", {"o_proj": 2}),
        ("distilbert", "fc1", {"lin1": 2}),
    ],
)
def test_old_and_new_names_are_the_same(models, architecture, wanted, expected):
    assert leaves(select(models[architecture], wanted)) == expected


@pytest.mark.parametrize(
    ("wanted", "path"), [("o_proj", "attention.output.dense"), ("fc1", "intermediate.dense"), ("fc2", "1.output.dense")]
)
def test_a_new_name_means_one_of_the_layers_called_dense(models, wanted, path):
    found = select(models["bert"], wanted)
    assert len(found) == 2
    assert found[1].endswith(path)


def test_a_name_that_exists_is_not_an_alias(models):
    assert leaves(select(models["bert"], "dense")) == {"dense": 6}


def test_a_partly_wrong_list_is_refused_with_the_nearest_name_and_what_exists(models):
    with pytest.raises(UsageError) as caught:
        select(models["llama"], "q_proj,v_porj")
    message = str(caught.value)
    assert 'named "v_porj"; did you mean "v_proj"?' in message
    assert "q_proj (2)" in message
    assert "down_proj (2)" in message
    assert len(message.splitlines()) <= 15


def test_the_head_cannot_be_a_target(models):
    with pytest.raises(UsageError, match="classifier"):
        select(models["bert"], "classifier")
    with pytest.raises(UsageError):
        select(models["bert"], ".*pooler.*")


def test_a_regular_expression_matches_full_names(models):
    found = select(models["bert"], r".*layer\.1\..*(query|value)")
    assert found == ("bert.encoder.layer.1.attention.self.query", "bert.encoder.layer.1.attention.self.value")
    with pytest.raises(UsageError, match="full name"):
        select(models["bert"], "quer.?")
    with pytest.raises(UsageError, match="not a regular expression"):
        select(models["bert"], "(query")


@pytest.mark.parametrize("wanted", ["", ",", []])
def test_no_name_at_all_is_refused(models, wanted):
    with pytest.raises(UsageError, match="no name"):
        select(models["bert"], wanted)


def test_a_group_that_finds_nothing_is_refused(models):
    with pytest.raises(UsageError, match='"attention" finds no layer'):
        select(models["fnet"], "attention")


def test_feedforward_is_the_down_projection_of_each_block(models):
    ends = {"bert": "output.dense", "llama": "mlp.down_proj", "gpt2": "mlp.c_proj", "distilbert": "ffn.lin2"}
    for name, end in ends.items():
        feedforward = find_targets(models[name], head_modules(models[name])).feedforward
        assert len(feedforward) == 2
        assert all(n.endswith(end) and "attention" not in n for n in feedforward)


def test_norms_are_those_of_the_backbone(models):
    norms = find_targets(models["llama"], head_modules(models["llama"])).norms
    assert norms == (
        "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm",
        "model.layers.1.input_layernorm", "model.layers.1.post_attention_layernorm", "model.norm",
    )  # fmt: skip


def test_a_backbone_of_convolutions_gives_the_ungrouped_ones(models):
    found = select(models["squeezebert"], "all-linear")
    assert len(found) == 2
    assert all(models["squeezebert"].get_submodule(name).groups == 1 for name in found)


def test_layers_that_peft_would_take_for_experts_are_left_out(models):
    assert leaves(select(models["deepseek_v2"], "all-linear")).keys() == {
        "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj",
    }  # fmt: skip


def test_a_pooler_is_no_target_even_when_nobody_named_it_head(models):
    assert not [name for name in find_targets(models["bert"], ("classifier",)).linears if "pooler" in name]


def test_weights_that_a_kernel_reads_are_no_targets():
    found = leaves(select(on_meta("jamba"), "all-linear"))
    assert "in_proj" in found
    assert not {"dt_proj", "out_proj"} & set(found)


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("t5", ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"]),
        ("albert", ["encoder.albert_layer_groups.0.albert_layers.0"]),
        ("xlm", ["attentions.0", "ffns.0", "attentions.1", "ffns.1"]),
        ("gemma3", ["language_model.layers.0", "language_model.layers.1"]),
        ("mbart", ["encoder.layers.0", "encoder.layers.1", "decoder.layers.0", "decoder.layers.1"]),
        ("mobilebert", ["encoder.layer.0", "encoder.layer.1"]),
    ],
)
def test_blocks_are_found_in_order(architecture, layers):
    assert [name.partition(".")[2] for name in find_layers(on_meta(architecture))] == layers


class Odd(PreTrainedModel):
    """A backbone nobody has heard of, with attention whose weights are read without a call."""

    config_class = PreTrainedConfig
    base_model_prefix = "odd"

    def __init__(self, config):
        super().__init__(config)
        block = {"attention": nn.MultiheadAttention(8, 2), "up": nn.Linear(8, 32), "down": nn.Linear(32, 8)}
        self.odd = nn.Module()
        self.odd.blocks = nn.ModuleList([nn.ModuleDict(block)])
        self.odd.extra = nn.Linear(8, 8)
        self.top = nn.Linear(8, 3)


def test_an_unknown_architecture_needs_no_table():
    with torch.device("meta"):
        model = Odd(PreTrainedConfig())
    targets = find_targets(model, head_modules(model))
    assert targets.head == ("top",)
    assert targets.layers == ("odd.blocks.0",)
    assert targets.selected == ("odd.blocks.0.up", "odd.blocks.0.down")
    assert targets.feedforward == ("odd.blocks.0.down",)
    assert targets.linears == (*targets.selected, "odd.extra")
