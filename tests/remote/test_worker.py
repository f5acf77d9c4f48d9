"""Programs of PyTorch run at a worker as they run here: the same bits, in one message a step."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import folkmoot as fm

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(
        params, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True
    ),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.01),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01),
    "amsgrad": lambda params: torch.optim.Adam(params, lr=0.01, amsgrad=True),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.01),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.01, momentum=0.9),
}


def trained(model, x, y, optimizer, steps=3):
    """Train as every tutorial does; returns the losses."""
    losses = []
    for begin in range(0, 64 * steps, 64):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[begin : begin + 64]), y[begin : begin + 64])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same(a, b):
    others = b.state_dict()
    return all(torch.equal(leaf, others[name]) for name, leaf in a.state_dict().items())


@pytest.mark.parametrize("process", [False, True], ids=["here", "process"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_gives_the_bits_of_the_same_program_here(digits, perceptron, optimizer, process):
    local = perceptron()

    with fm.Worker("alice", {"digits": digits}, process=process) as alice:
        there = alice.send(local)
        losses = trained(there, *alice.data["digits"], optimizer(there.parameters()))
        fetched = there.get()

    assert losses == trained(local, *digits, optimizer(local.parameters()))
    assert same(fetched, local)


def test_clipping_schedules_and_validation_give_the_same_bits(alice, digits, perceptron):
    def program(model, x, y, seed):
        seed(5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        found = []
        for _ in range(2):
            model.train()
            for begin in range(0, 256, 64):
                optimizer.zero_grad()
                F.cross_entropy(model(x[begin : begin + 64]), y[begin : begin + 64]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
            schedule.step()
            model.eval()
            with torch.no_grad():
                outputs = model(x[:128])
                loss = F.cross_entropy(outputs, y[:128])
            plateau.step(loss)
            found += [loss.item(), (outputs.argmax(1) == y[:128]).sum().item()]
        return found

    local = perceptron(nn.BatchNorm1d(8), nn.Dropout(0.25), nn.ReLU(inplace=True))
    there = alice.send(local)

    found = program(there, *alice.data["digits"], alice.manual_seed)

    assert found == program(local, *digits, torch.manual_seed)
    assert same(there.get(), local)


class Picture(nn.Module):
    """Convolutions, pools, norms, dropout, and some code of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.2)
        self.layer = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.pool(F.relu(self.norm(self.conv(x.view(-1, 1, 3, 4)))))
        x = self.drop(x.flatten(1))
        x = self.layer(torch.cat([x, 1 - x, x.tanh() ** 2], dim=1)[:, :12])
        return F.log_softmax(self.head(F.gelu(x)), dim=1)


def test_layers_of_many_kinds_and_dropout_give_the_same_bits(alice, digits):
    torch.manual_seed(3)
    local = Picture()
    there = alice.send(local)

    torch.manual_seed(5)
    alice.manual_seed(5)
    x, y = alice.data["digits"]
    for model, inputs, targets in ((there, x, y), (local, *digits)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        F.nll_loss(model(inputs[:64]), targets[:64]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    assert same(there.get(), local)
    there.eval(), local.eval()
    accuracy = (there(x).argmax(1) == y).float().mean().item()
    assert accuracy == (local(digits[0]).argmax(1) == digits[1]).float().mean().item()


def test_a_step_is_one_message(alice, watched, perceptron):
    there = alice.send(perceptron())
    optimizer = torch.optim.SGD(there.parameters(), lr=0.1)

    trained(there, *alice.data["digits"], optimizer, steps=3)

    assert len(watched.sent) == 3


def test_the_module_that_was_sent_stays_as_it_was(alice, perceptron):
    local = perceptron()
    before = copy.deepcopy(local)

    there = alice.send(local)
    trained(there, *alice.data["digits"], torch.optim.SGD(there.parameters(), lr=0.1))

    assert same(local, before)
    assert all(isinstance(p, nn.Parameter) for p in there.parameters())
    assert not isinstance(next(local.parameters()), fm.remote.Pointer)


def test_a_fetched_module_is_an_ordinary_one(alice, perceptron):
    fetched = alice.send(perceptron(nn.BatchNorm1d(8))).get()

    assert type(fetched) is nn.Sequential and not hasattr(fetched, "get")
    assert all(type(p) is nn.Parameter and p.requires_grad for p in fetched.parameters())
    assert fetched[1].running_var.tolist() == [1.0] * 8
    fetched(torch.ones(2, 12)).sum().backward()


def test_parameters_that_are_one_stay_one(alice):
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight

    there = alice.send(tied)

    assert there[0].weight is there[1].weight
    fetched = there.get()
    assert fetched[0].weight is fetched[1].weight


def test_a_model_goes_from_alice_to_bob(digits, perceptron):
    local = perceptron()
    with (
        fm.Worker("alice", {"digits": [part[:128] for part in digits]}) as alice,
        fm.Worker("bob", {"digits": [part[128:] for part in digits]}) as bob,
    ):
        model = local
        for worker in (alice, bob):
            model = worker.send(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            trained(model, *worker.data["digits"], optimizer, steps=2)
            model = model.get()

    for part in (slice(128), slice(128, None)):
        optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
        trained(local, *(column[part] for column in digits), optimizer, steps=2)
    assert same(model, local)


def test_what_nobody_holds_is_let_go_at_the_worker(alice, perceptron):
    there = alice.send(perceptron())
    optimizer = torch.optim.SGD(there.parameters(), lr=0.1)
    site = alice._channel._answer.__self__
    [session] = site._sessions.values()

    counts = []
    for _ in range(4):
        trained(there, *alice.data["digits"], optimizer, steps=2)
        counts.append((len(session.objects), session.objects.num_bytes))

    assert len(set(counts[1:])) == 1


def test_a_mock_has_the_schema_and_no_numbers_of_the_data(alice, digits):
    mock = alice.data["digits"].mock

    assert mock.x.shape[1:] == digits[0].shape[1:] and mock.x.dtype == digits[0].dtype
    assert mock.y.dtype == torch.int64 and set(mock.y.tolist()) == {0, 1}
    assert not (mock.x[:, None] == digits[0]).all(2).any()
    assert type(mock.x) is torch.Tensor


def test_columns_have_names_and_tables_too(digits):
    data = {"heart": {"age": digits[0][:, 0], "ill": digits[1]}}
    with fm.Worker("alice", data) as alice:
        assert list(alice.data) == ["heart"]
        assert alice.data["heart"].age.shape == (256,)
        assert repr(alice.data["heart"]) == "Table('heart', age: [256], ill: [256])"
        with pytest.raises(fm.DataError, match=r"has no 'haert'. Did you mean 'heart'"):
            alice.data["haert"]
        with pytest.raises(AttributeError, match=r"no column 'agee'. Did you mean 'age'"):
            _ = alice.data["heart"].agee


def test_data_that_are_no_table_are_refused(digits):
    with pytest.raises(fm.DataError, match="x: 256, y: 3"):
        fm.Worker("alice", {"digits": (digits[0], digits[1][:3])})
    with pytest.raises(fm.DataError, match="name them"):
        fm.Worker("alice", {"digits": (digits[0],) * 3})
    with pytest.raises(fm.SettingsError, match="A tensor or a module"):
        fm.Worker("alice").send([1, 2])


def test_a_policy_says_what_is_wrong_with_it():
    with pytest.raises(fm.SettingsError, match="min_rows must be"):
        fm.remote.Policy(min_rows=0)
    with pytest.raises(fm.SettingsError, match="policy must be"):
        fm.Worker("alice", policy={"min_rows": 3})
