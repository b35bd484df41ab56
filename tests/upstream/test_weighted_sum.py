"""The weighted sum against stack and einsum, for every way in which layers come."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headwater.upstream.base import Frames, Layers
from headwater.upstream.weighted_sum import WeightedSum

NUM_LAYERS, SHAPE = 5, (2, 3, 4)


def random_layers(
    dtype: torch.dtype = torch.float64, requires_grad: bool = False, shape: tuple[int, ...] = SHAPE
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(NUM_LAYERS)]
    return [value.to(dtype).requires_grad_(requires_grad) for value in values]


def learned_sum(normalize: bool = False, dtype: torch.dtype = torch.float64) -> WeightedSum:
    weighted_sum = WeightedSum(NUM_LAYERS, normalize)
    weighted_sum.logits.data.copy_(torch.linspace(-1, 1, NUM_LAYERS))
    return weighted_sum.to(dtype)


def stacked(logits: Tensor, values: list[Tensor], normalize: bool) -> Tensor:
    if normalize:
        values = [F.layer_norm(value, value.shape[-1:]) for value in values]
    return torch.einsum("l,lbtd->btd", logits.softmax(dim=0), torch.stack(values))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_values_and_gradients_equal_stack_and_einsum(normalize: bool, requires_grad: bool) -> None:
    weighted_sum, values = learned_sum(normalize), random_layers(requires_grad=requires_grad)
    wanted = [weighted_sum.logits, *values] if requires_grad else [weighted_sum.logits]
    direction = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = weighted_sum(Layers(values, (3, 2))).values
    theirs = stacked(weighted_sum.logits, values, normalize)
    torch.testing.assert_close(ours, theirs)
    for mine, expected in zip(
        torch.autograd.grad(ours, wanted, direction), torch.autograd.grad(theirs, wanted, direction), strict=True
    ):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_gradients_equal_finite_differences(normalize: bool, requires_grad: bool) -> None:
    weighted_sum, values = learned_sum(normalize), random_layers(requires_grad=requires_grad)

    def mixed(logits: Tensor, *layers: Tensor) -> Tensor:
        frames = torch.func.functional_call(weighted_sum, {"logits": logits}, (Layers(layers, (3, 2)),))
        assert isinstance(frames, Frames)
        return frames.values

    assert torch.autograd.gradcheck(mixed, (weighted_sum.logits, *values))


def test_weights_start_uniform_and_stay_a_mixture() -> None:
    weighted_sum = WeightedSum(NUM_LAYERS)
    assert weighted_sum.weights.tolist() == pytest.approx([1 / NUM_LAYERS] * NUM_LAYERS)
    learned = learned_sum().weights
    assert not learned.requires_grad
    assert learned.sum().item() == pytest.approx(1.0)
    assert learned[-1] > learned[0] > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalize", [False, True])
def test_half_precision_layers_are_summed_in_float32_and_kept_as_they_are(dtype: torch.dtype, normalize: bool) -> None:
    weighted_sum, values = learned_sum(normalize, torch.float32), random_layers(dtype, shape=(2, 50, 64))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ours = weighted_sum(Layers(values, (50, 20))).values
    theirs = stacked(weighted_sum.logits, [value.float() for value in values], normalize)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    large = [tensor for tensor in kept if tensor.numel() == values[0].numel()]
    assert {tensor.data_ptr() for tensor in large} == {value.data_ptr() for value in values}
    mine = torch.autograd.grad(ours.sum(), weighted_sum.logits)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(theirs.sum(), weighted_sum.logits)[0], rtol=1e-4, atol=1e-3)


def test_rows_that_are_converted_some_at_a_time_make_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    values, direction = random_layers(torch.float16, shape=(5, 3, 4)), torch.linspace(-1, 1, 60).view(5, 3, 4)
    found = []
    for cached in (10**6, 2 * 3 * 4):  # all rows, or two of the five
        monkeypatch.setattr("headwater.upstream.weighted_sum.CACHED", cached)
        weighted_sum = learned_sum(dtype=torch.float32)
        mixed = weighted_sum(Layers(values, (3,) * 5)).values
        found.append((mixed.detach(), *torch.autograd.grad(mixed, weighted_sum.logits, direction)))
    torch.testing.assert_close(found[1], found[0])
    assert not torch.equal(found[0][0], torch.zeros(5, 3, 4))


def test_layers_of_mixed_precision_are_summed() -> None:
    values = [value.half() if index % 2 else value.float() for index, value in enumerate(random_layers())]
    ours = learned_sum(dtype=torch.float32)(Layers(values, (3, 2))).values
    torch.testing.assert_close(ours, stacked(learned_sum(dtype=torch.float32).logits, [value.float() for value in values], False))


def test_a_module_in_half_precision_still_sums_in_float32() -> None:
    values = random_layers(torch.bfloat16)
    assert learned_sum(dtype=torch.bfloat16)(Layers(values, (3, 2))).values.dtype == torch.float32


def test_autocast_changes_neither_values_nor_gradients() -> None:
    weighted_sum, values = learned_sum(dtype=torch.float32), random_layers(torch.float32)
    plain = weighted_sum(Layers(values, (3, 2))).values
    with torch.autocast("cpu", torch.bfloat16):
        cast = weighted_sum(Layers(values, (3, 2))).values
        gradient = torch.autograd.grad(cast.square().sum(), weighted_sum.logits)[0]
    torch.testing.assert_close(cast, plain)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain.square().sum(), weighted_sum.logits)[0])


def test_pooled_layers_are_not_normalised_a_second_time() -> None:
    values = random_layers(shape=(2, 1, 4))
    pooled = learned_sum(normalize=True)(Layers(values, (1, 1), pooled=True))
    assert pooled.pooled
    torch.testing.assert_close(pooled.values, stacked(learned_sum().logits, values, normalize=False))


def test_the_mean_of_the_sum_is_the_sum_of_the_means() -> None:
    values = random_layers(torch.float32, shape=(1, 20, 8))
    normalised = [F.layer_norm(value, value.shape[-1:]).mean(dim=1, keepdim=True) for value in values]
    weighted_sum = learned_sum(normalize=True, dtype=torch.float32)
    whole = weighted_sum(Layers(values, (20,))).values.mean(dim=1, keepdim=True)
    torch.testing.assert_close(weighted_sum(Layers(normalised, (1,), pooled=True)).values, whole, rtol=1e-5, atol=1e-6)


def test_stored_layers_come_as_views_of_one_tensor() -> None:
    values = random_layers(torch.float32)
    views = torch.stack(values, dim=2).unbind(dim=2)  # (batch, frame, layer, dim) as a store keeps them
    weighted_sum = learned_sum(dtype=torch.float32)
    torch.testing.assert_close(weighted_sum(Layers(views, (3, 2))).values, weighted_sum(Layers(values, (3, 2))).values)


def test_a_sum_of_one_layer_is_that_layer() -> None:
    weighted_sum = WeightedSum(1).requires_grad_(False)
    value = random_layers(torch.float32)[0]
    torch.testing.assert_close(weighted_sum(Layers([value], (3, 2))).values, value)


def test_a_missing_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected 5 layers, found 4\. Is LayerDrop on\? Set `layerdrop=0`"):
        WeightedSum(NUM_LAYERS)(Layers(random_layers()[:4], (3, 2)))


def test_layers_of_different_lengths_are_refused() -> None:
    values = [*random_layers()[:4], torch.zeros(2, 1, 4, dtype=torch.float64)]
    with pytest.raises(ValueError, match="Expected layers of one shape, found"):
        WeightedSum(NUM_LAYERS)(Layers(values, (3, 2)))
