"""LoRA on tiny models made here: adapters alone travel, and learn what PyTorch's loop learns."""

import copy
import sys

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.adapters.peft import peft

transformers = pytest.importorskip("transformers")
library = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

WORDS, LENGTH = 20, 6


@pytest.fixture(scope="module")
def speaker():
    """A language model of random weights, whose last layer is its embedding."""
    torch.manual_seed(0)
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=8, n_embd=8, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, **drops,
    )  # fmt: skip
    lora = library.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True
    )
    return library.get_peft_model(transformers.GPT2LMHeadModel(config), lora)


def judge(num_labels):
    """A classifier of random weights, with dropout."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=8, num_labels=num_labels,
        attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.05, initializer_range=0.1,
    )  # fmt: skip
    lora = library.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    return library.get_peft_model(transformers.BertForSequenceClassification(config), lora)


@pytest.fixture(scope="module")
def classifier():
    return judge(3)


def lines(rows, seed):
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(WORDS, (rows, LENGTH), generator=draw)
    return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": words.clone()}


def reviews(rows, seed):
    """The first word is the class; words behind a random length are masked, whatever they are."""
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(3, WORDS, (rows, LENGTH), generator=draw)
    words[:, 0] = torch.arange(rows) % 3
    ends = torch.randint(2, LENGTH + 1, (rows, 1), generator=draw)
    mask = (torch.arange(LENGTH) < ends).long()
    return {"input_ids": words, "attention_mask": mask, "labels": words[:, 0].clone()}


def run(objective, clients, rounds=1, lr=0.1, batch_size=None, **more):
    work = fm.local.sgd(objective, lr=lr, batch_size=batch_size)
    options = {"workers": 1, "progress": False, **more}
    return fm.run(fm.fedavg(work), clients, rounds=rounds, **options)


def adapters(model):
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def test_a_round_is_the_mean_of_pytorch_s_own_steps(speaker):
    clients = {client: lines(4 + 4 * client, client) for client in range(2)}
    ends = []
    for data in clients.values():
        model = copy.deepcopy(speaker).train()
        model(**data).loss.backward()
        with torch.no_grad():
            ends.append(
                {name: p - 0.1 * p.grad for name, p in model.named_parameters() if p.requires_grad}
            )

    found = run(peft(speaker), clients).state["params"]

    for name, leaf in found.items():
        expected = (4 * ends[0][name] + 8 * ends[1][name]) / 12
        torch.testing.assert_close(leaf, expected, rtol=1e-5, atol=1e-7)


def test_only_the_matrices_of_lora_travel_and_the_base_stays(speaker):
    before = copy.deepcopy(speaker.state_dict())

    result = run(peft(speaker), {client: lines(4, client) for client in range(3)}, rounds=2)

    matrices = adapters(speaker)
    assert set(result.state["params"]) == set(matrices)
    assert all("lora_" in name for name in matrices)
    assert not result.state["buffers"] and not result.state["counts"]
    # Two layers, A of 2 x 8 and B of 24 x 2, in float32; a round's number, and a weight.
    travels = 4 * 2 * (2 * 8 + 24 * 2)
    assert result.traffic == (2 * 3 * (travels + 8), 2 * 3 * (travels + 8))
    after = result.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in matrices if name in before}
    # Whoever gave the model still has it as it was.
    assert all(torch.equal(before[name], leaf) for name, leaf in speaker.state_dict().items())


def test_a_peft_model_comes_back_with_its_weights_still_tied(speaker):
    result = run(peft(speaker), {0: lines(4, 0)}, test=lines(8, 9))

    model = result.model
    assert isinstance(model, library.PeftModel)
    inner = model.base_model.model
    assert inner.lm_head.weight is inner.transformer.wte.weight
    stored = library.get_peft_model_state_dict(model)
    assert len(stored) == len(result.state["params"])
    assert result.metrics["test_loss"] == pytest.approx(model(**lines(8, 9)).loss.item(), rel=1e-5)


def test_a_learnt_prompt_stands_before_the_tokens(speaker):
    prompt = library.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    model = library.get_peft_model(copy.deepcopy(speaker).unload(), prompt)

    result = run(peft(model), {0: lines(4, 0)}, test=lines(8, 9))

    [(name, learnt)] = result.state["params"].items()
    assert not torch.equal(learnt, model.get_parameter(name))
    loss = result.model(**lines(8, 9)).loss.item()
    assert result.metrics["test_loss"] == pytest.approx(loss, rel=1e-5)


def test_a_token_that_counts_nowhere_is_left_out(speaker):
    data = lines(4, 0)
    data["labels"][:, 3:] = -100

    result = run(peft(speaker), {0: lines(4, 0)}, test=data)

    assert result.metrics["test_loss"] == pytest.approx(result.model(**data).loss.item(), rel=1e-5)


def test_a_classifier_learns_from_named_inputs_at_any_number_of_workers(classifier):
    clients = {client: reviews(30, client) for client in range(2)}
    options = {"rounds": 4, "lr": 0.3, "batch_size": 6, "test": reviews(60, 9)}

    one, two = (run(peft(classifier), clients, workers=count, **options) for count in (1, 2))

    assert one.metrics["test_accuracy"] > 0.9
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state["params"].values(), two.state["params"].values(), strict=True)
    )
    # The new head is trained too, so it travels.
    heads = [name for name in one.state["params"] if "lora_" not in name]
    assert [name.rpartition(".")[2] for name in heads] == ["weight", "bias"]


def test_one_label_is_a_number(classifier):
    data = {**reviews(8, 0), "labels": torch.randn(8, generator=torch.Generator().manual_seed(0))}

    result = run(peft(judge(1)), {0: data}, test=data)

    inputs = {name: data[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        said = result.model(**inputs).logits[:, 0]
    assert result.metrics["test_loss"] == pytest.approx(
        float((said - data["labels"]).square().mean()), rel=1e-5
    )


def test_several_labels_a_row_are_not_taken_for_probabilities(classifier):
    data = {**reviews(6, 0), "labels": torch.ones(6, 3)}
    several = judge(3)
    several.config.problem_type = "multi_label_classification"

    with pytest.raises(fm.SettingsError, match="SEQ_CLS, multi_label_classification"):
        peft(several)
    with pytest.raises(fm.SettingsError, match=r"Targets are torch\.float32"):
        run(peft(classifier), {0: data})


def test_a_loss_of_one_s_own_sees_logits(classifier):
    def margin(outputs, targets):
        return nn.functional.multi_margin_loss(outputs, targets, reduction="none")

    objective = peft(classifier, margin, [fm.metrics.accuracy()])
    result = run(objective, {0: reviews(6, 0)}, test=reviews(6, 1))

    assert set(result.metrics) == {"test_loss", "test_accuracy"}


def test_sums_of_adapters_may_be_secure_and_private(speaker):
    clients = {client: lines(4, client) for client in range(3)}
    plain = run(peft(speaker), clients, lr=10.0).state["params"]

    budget = fm.DP(noise_multiplier=1e-4, delta=1e-3, clip=2.0, simulation=True)
    for options in ({"secure": True}, {"privacy": budget}):
        found = run(peft(speaker), clients, lr=10.0, **options).state["params"]
        for name, leaf in plain.items():
            torch.testing.assert_close(found[name], leaf, rtol=0, atol=2e-3)
    # All of which is far less than what has been learnt.
    first = adapters(speaker)
    assert max((leaf - first[name]).abs().max() for name, leaf in plain.items()) > 0.1


def test_what_has_no_adapters_or_no_loss_is_refused_with_a_sentence(speaker):
    with pytest.raises(fm.SettingsError, match=r"get_peft_model.*was given a Linear"):
        peft(nn.Linear(2, 2))
    other = copy.deepcopy(speaker)
    other.peft_config["default"].task_type = "TOKEN_CLS"
    with pytest.raises(fm.SettingsError, match="no loss here for the task type TOKEN_CLS"):
        peft(other)
    for parameter in other.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(fm.SettingsError, match="no trainable parameter"):
        peft(other, lambda outputs, targets: outputs.mean())


def test_without_the_library_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)

    with pytest.raises(fm.SettingsError, match=r"folkmoot\[peft\]"):
        peft(nn.Linear(2, 2))
