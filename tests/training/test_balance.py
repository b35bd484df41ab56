"""What becomes of several tasks' losses: the gradient of their sum, weighted, learnt, or operated on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import UserError
from headwater.runs.config.resolve import resolve
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.training.balance import BalanceConfig, Balancer, Dwa, cosines, make_balancer
from headwater.training.config import OptimizerConfig, TrainingConfig
from headwater.training.step import Plan, StepFacts, take_step


@dataclass(frozen=True)
class Point:
    """A batch of nothing."""

    ids: tuple[str, ...] = ("a",)

    def to(self, _: object) -> Point:
        """Stay."""
        return self

    def __len__(self) -> int:
        return 1


class Hill(nn.Module):
    """Two shared weights, and for each task a loss over them: `push` · w + `steep` |w - `goal`|² / 2."""

    shares_sums = sharded = False

    def __init__(self, push: Mapping[str, Sequence[float]], steep: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.upstreams = nn.ModuleDict({"audio": nn.Linear(2, 1, bias=False)})
        nn.init.zeros_(self.weight)
        self.push = {task: torch.tensor(list(map(float, value))) for task, value in push.items()}
        self.steep = steep or dict.fromkeys(push, 0.0)
        self.heads = nn.ParameterDict({task: nn.Parameter(torch.ones(())) for task in push})

    @property
    def weight(self) -> Tensor:
        """What the tasks share."""
        return self.upstreams["audio"].weight

    def forward(self, task: str, _: Point) -> tuple[Tensor, None]:
        """Return a task's loss."""
        shared = self.weight[0]
        hill = self.steep[task] * (shared - 1).square().sum() / 2
        return self.push[task] @ shared + hill + 0 * self.heads[task], None


def step(model: nn.Module, balancer: Balancer, number: int = 0, cosines_every: int = 0) -> StepFacts:
    """Leave the gradient of one step in a hill's weights."""
    accelerator = make_accelerator(resolve([{"task": "emotion"}]), Runtime("cpu", quiet=True))
    model.zero_grad()
    balancer.zero_grad()
    plan = Plan(TrainingConfig(), OptimizerConfig(), 1, balancer, cosines_every=cosines_every)
    return take_step(model, {task: [(Point(), 1.0)] for task in balancer.tasks}, accelerator, plan, number)


def gradient(model: Hill) -> list[float]:
    """Return the gradient of the shared weights."""
    assert model.weight.grad is not None
    return model.weight.grad[0].tolist()


def test_summed_losses_add_their_gradients() -> None:
    hill = Hill({"one": (1, 2), "two": (3, -1)})
    step(hill, Balancer(["one", "two"]))
    assert gradient(hill) == [4.0, 1.0]


def test_given_weights_scale_a_tasks_gradient_and_the_unnamed_keep_theirs() -> None:
    hill = Hill({"one": (1, 2), "two": (3, -1)})
    step(hill, make_balancer(BalanceConfig("fixed", {"two": 0.5}), ["one", "two"]))
    assert gradient(hill) == [2.5, 1.5]


def test_looking_at_cosines_does_not_change_the_gradient() -> None:
    hill = Hill({"one": (1, 2), "two": (3, -1), "three": (0, 5)})
    facts = step(hill, Balancer(["one", "two", "three"]), cosines_every=1)
    assert gradient(hill) == [4.0, 6.0]
    assert facts.cosines is not None
    assert facts.cosines[0, 1] == pytest.approx(1 / math.sqrt(5 * 10), abs=1e-6)
    assert facts.cosines[0, 2] == pytest.approx(2 / math.sqrt(5), abs=1e-6)


def test_cosines_are_those_of_the_angles_and_zero_beside_no_gradient() -> None:
    found = cosines(torch.tensor([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, 0.0]]))
    half = math.sqrt(0.5)
    expected = torch.tensor([[1, half, -1, 0], [half, 1, -half, 0], [-1, -half, 1, 0], [0, 0, 0, 0]])
    assert torch.allclose(found, expected, atol=1e-6)


def test_pcgrad_gives_the_sum_computed_by_hand() -> None:
    # one - (one·two / |two|²) two = (0.5, 0.5); two - (two·one / |one|²) one = (0, 1)
    pytest.importorskip("torchjd")
    hill = Hill({"one": (1, 0), "two": (-1, 1)})
    step(hill, make_balancer(BalanceConfig("torchjd:PCGrad"), ["one", "two"]))
    assert gradient(hill) == pytest.approx([0.5, 1.5], abs=1e-6)


def test_what_pcgrad_draws_is_a_function_of_the_step() -> None:
    pytest.importorskip("torchjd")
    push = {"one": (1, 0), "two": (-1, 0.2), "three": (-0.5, -1), "four": (0.2, -2)}
    found = []
    for disturbance in (1, 2, 3):
        torch.manual_seed(disturbance)
        hill = Hill(push)
        hill.push["four"] = hill.push["four"] + 0 * torch.rand(2)
        step(hill, make_balancer(BalanceConfig("torchjd:PCGrad"), [*push]), number=5)
        found.append(gradient(hill))
    assert found[0] == found[1] == found[2]
    orders = set()
    for number in range(8):
        hill = Hill(push)
        step(hill, make_balancer(BalanceConfig("torchjd:PCGrad"), [*push]), number=number)
        orders.add(tuple(gradient(hill)))
    assert len(orders) > 1  # the order matters here, so that equal ones are no accident


@pytest.mark.parametrize("name", ["MGDA", "IMTLG", "GradVac", "AlignedMTL", "ConFIG"])
def test_surgery_leaves_alone_a_task_that_is_by_itself(name: str) -> None:
    pytest.importorskip("torchjd")
    hill = Hill({"one": (1, 2)})
    step(hill, make_balancer(BalanceConfig(f"torchjd:{name}"), ["one"]))
    assert gradient(hill) == [1.0, 2.0]


def test_mgda_goes_where_no_task_gets_worse() -> None:
    pytest.importorskip("torchjd")
    hill = Hill({"one": (4, 0), "two": (-1, 1)})
    step(hill, make_balancer(BalanceConfig("torchjd:MGDA"), ["one", "two"]))
    found = torch.tensor(gradient(hill))
    assert all(float(found @ push) > 0 for push in hill.push.values())


@pytest.mark.parametrize("name", ["GradVac", "PCD", "MGDA"])
def test_the_trial_of_an_aggregator_leaves_no_trace(name: str) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    rows = torch.tensor([[4.0, 0.0], [-1.0, 1.0]])
    made = make_balancer(BalanceConfig(f"torchjd:{name}"), ["one", "two"])
    assert torch.allclose(made.combine(rows), getattr(aggregation, name)()(rows))


def test_fairgrad_needs_no_setting_and_takes_one() -> None:
    pytest.importorskip("torchjd")
    usual, other = (
        make_balancer(BalanceConfig("torchjd:FairGrad", settings=settings), ["one", "two"]) for settings in ({}, {"alpha": 2.0})
    )
    rows = torch.tensor([[4.0, 0.0], [-1.0, 1.0]])
    assert not torch.allclose(usual.combine(rows), other.combine(rows))


def test_a_setting_of_one_value_for_each_task_is_a_list() -> None:
    pytest.importorskip("torchjd")
    rows = torch.tensor([[4.0, 0.0], [-1.0, 1.0]])
    made = make_balancer(BalanceConfig("torchjd:Constant", settings={"weights": [1, 2]}), ["one", "two"])
    assert torch.equal(made.combine(rows), torch.tensor([2.0, 2.0]))
    with pytest.raises(UserError, match="Expected settings that torchjd's Constant takes, found"):
        make_balancer(BalanceConfig("torchjd:Constant", settings={"weights": "much"}), ["one", "two"])


def test_cagrad_and_nash_mtl_run_where_their_solvers_are() -> None:
    pytest.importorskip("torchjd")
    for package in ("cvxpy", "clarabel", "ecos"):
        pytest.importorskip(package)
    rows = torch.tensor([[4.0, 0.0], [-1.0, 1.0]])
    near = make_balancer(BalanceConfig("torchjd:CAGrad", settings={"c": 0.0}), ["one", "two"])
    assert torch.allclose(near.combine(rows), rows.mean(dim=0), atol=1e-5)  # c = 0 is the mean of the gradients
    nash = make_balancer(BalanceConfig("torchjd:NashMTL"), ["one", "two"])
    first = nash.combine(rows)
    nash.combine(torch.tensor([[0.1, 3.0], [2.0, -1.0]]))
    assert torch.equal(nash.combine(rows), first)  # a function of the step alone: a resumed run goes on alike


def test_an_uncertain_task_weighs_less_and_its_variance_is_trained() -> None:
    balancer = make_balancer(BalanceConfig("uncertainty"), ["one", "two"])
    hill = Hill({"one": (1, 2), "two": (3, -1)}, steep={"one": 0.0, "two": 9.0})  # at w = 0 the losses are 0 and 9
    step(hill, balancer)
    slopes = {name: float(value.grad) for name, value in balancer.named_parameters() if value.grad is not None}
    assert slopes == {"log_variances.one": 0.5, "log_variances.two": -8.5}  # 1/2 - exp(-v) loss
    for value in balancer.parameters():
        value.data.fill_(math.log(4))
    assert balancer.weights() == pytest.approx({"one": 0.25, "two": 0.25})
    step(hill, balancer)
    assert gradient(hill) == pytest.approx([(4 - 9) / 4, (1 - 9) / 4])


def test_dwa_weighs_by_how_slowly_a_loss_falls() -> None:
    dwa = Dwa(["slow", "fast"], temperature=2.0, every=2)
    for slow, fast in ((4, 8), (4, 8), (3, 2), (3, 2)):
        assert dwa.weights() == {"slow": 1.0, "fast": 1.0}
        dwa.observe({"slow": slow, "fast": fast}, {})
    parts = [math.exp(0.75 / 2), math.exp(0.25 / 2)]  # the stretches' means fell to 3/4 and to 1/4
    assert dwa.weights() == pytest.approx({"slow": 2 * parts[0] / sum(parts), "fast": 2 * parts[1] / sum(parts)})


def test_dwa_waits_until_every_task_was_drawn_often_enough() -> None:
    dwa = Dwa(["often", "rare"], temperature=2.0, every=2)
    for loss in range(1, 20):
        dwa.observe({"often": float(loss)}, {})
    assert dwa.weights() == {"often": 1.0, "rare": 1.0}


def test_gradnorm_equalises_gradients_that_differ_a_hundredfold() -> None:
    hill = Hill({"steep": (100, 0), "flat": (0, 1)})
    balancer = make_balancer(BalanceConfig("gradnorm", alpha=0.0), ["steep", "flat"])
    norms = {}
    for number in range(400):
        step(hill, balancer, number)
        norms = dict(zip(balancer.tasks, map(abs, gradient(hill)), strict=True))
    assert norms["steep"] == pytest.approx(norms["flat"], rel=0.1)
    assert sum(balancer.weights().values()) == pytest.approx(2.0)


def test_gradnorm_equalises_two_quadratic_tasks_while_they_are_trained() -> None:
    tasks = ["steep", "flat"]
    hill = Hill({"steep": (0, 0), "flat": (0, 0)}, steep={"steep": 100.0, "flat": 1.0})
    balancer = make_balancer(BalanceConfig("gradnorm", alpha=0.0), tasks)
    for number in range(400):
        step(hill, balancer, number)
        hill.weight.data -= 1e-4 * hill.weight.grad  # type: ignore[operator]
    weights = balancer.weights()
    assert 100 * weights["steep"] == pytest.approx(1 * weights["flat"], rel=0.1)


def test_gradnorm_pushes_the_task_that_falls_behind() -> None:
    balancer = make_balancer(BalanceConfig("gradnorm", alpha=1.5), ["quick", "slow"])
    balancer.observe({"quick": 1.0, "slow": 1.0}, {"quick": 1.0, "slow": 1.0})
    assert balancer.weights() == pytest.approx({"quick": 1.0, "slow": 1.0})
    balancer.observe({"quick": 0.5, "slow": 1.0}, {"quick": 1.0, "slow": 1.0})
    assert balancer.weights()["slow"] > 1.0 > balancer.weights()["quick"]


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "gradnorm", "torchjd:GradVac", "torchjd:PCD"])
def test_what_a_balancer_remembers_is_in_its_state(method: str) -> None:
    if method.startswith("torchjd"):
        pytest.importorskip("torchjd")
    tasks = ["one", "two", "three"]
    config = BalanceConfig(method, every=2)
    push = {"one": (1, 0), "two": (-1, 0.2), "three": (-0.5, -1)}
    hill, balancer = Hill(push, dict.fromkeys(push, 2.0)), make_balancer(config, tasks)

    def go(used: Balancer, steps: range) -> list[list[float]]:
        found = []
        for number in steps:
            step(hill, used, number)
            found.append(gradient(hill))
            for value in used.parameters():
                value.data -= 0.1 * (0 if value.grad is None else value.grad)
            hill.weight.data -= 0.05 * hill.weight.grad  # type: ignore[operator]
        return found

    go(balancer, range(7))
    state = {key: value.clone() for key, value in balancer.state_dict().items()}
    weights = hill.weight.data.clone()
    expected = go(balancer, range(7, 12))
    hill.weight.data = weights
    resumed = make_balancer(config, tasks)
    resumed.load_state_dict(state)
    assert go(resumed, range(7, 12)) == expected
    hill.weight.data = weights
    assert go(make_balancer(config, tasks), range(7, 12)) != expected  # without its state it is another run


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (BalanceConfig("uncertainly"), "found 'uncertainly'. Did you mean 'uncertainty'?"),
        (BalanceConfig("fixed", {"tree": 2.0}), "found 'tree'. Did you mean 'three'?"),
        (BalanceConfig("dwa", {"three": 2.0}), "balance.method=fixed beside balance.weights, found 'dwa'"),
        (BalanceConfig("torchjd:PCgrad"), "no aggregator 'PCgrad'. Did you mean 'PCGrad'?"),
        (BalanceConfig("torchjd:FairGrad", settings={"alfa": 1}), "found 'alfa'. Did you mean 'alpha'?"),
        (BalanceConfig("torchjd:TrimmedMean"), "Expected the setting 'trim_number' for torchjd's TrimmedMean"),
        (BalanceConfig("torchjd:ExcessMTL"), "whose memory a checkpoint can hold, found ExcessMTL"),
        (BalanceConfig("dwa", settings={"c": 0.5}), "balance.method=torchjd:NAME beside balance.settings, found 'dwa'"),
        (BalanceConfig("torchjd:NashMTL", settings={"update_weights_every": 5}), "update_weights_every=1 for NashMTL"),
    ],
    ids=[
        "a balancer nobody knows",
        "a task that is not there",
        "weights for another method",
        "a surgery nobody knows",
        "a setting nobody knows",
        "a setting that is missing",
        "a memory that no checkpoint holds",
        "settings of another method",
        "weights used again",
    ],
)
def test_a_wrong_balance_is_refused_with_the_nearest_right_one(config: BalanceConfig, words: str) -> None:
    if config.method.startswith("torchjd"):
        pytest.importorskip("torchjd")
    with pytest.raises(UserError) as caught:
        make_balancer(config, ["one", "three"])
    assert words in str(caught.value)
