"""Where MetaRM comes to rest, on a convex case: a linear reward, whose ranking loss has one minimum.

What `docs/methods.md` derives, with the product's own losses and walk.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_rm.losses.difference import difference_loss
from lightning_rm.losses.ranking import ranking_loss
from lightning_rm.modules.ascent import Ascent
from tests.float64 import BOUND

SIZE, NUM_PAIRS, K, NUM_GROUPS = 3, 60, 4, 5


class Linear:
    """Pairs and groups of a linear reward, their labels the truth's own probabilities."""

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(0)
        options = {"generator": draws, "dtype": torch.float64}
        self.difference = torch.randn(NUM_PAIRS, SIZE, **options)
        self.label = (self.difference @ torch.randn(SIZE, **options)).sigmoid()
        self.responses = torch.randn(K, NUM_GROUPS, SIZE, **options)
        self.weight = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))

    def ranking(self, weight: Tensor) -> Tensor:
        margin = self.difference @ weight
        return ranking_loss(margin, torch.zeros_like(margin), self.label)

    def climbed(self, weight: Tensor) -> Tensor:
        return difference_loss(self.responses @ weight)

    def gradient(self, of: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(of, [self.weight])
        return found


def at_rest(case: Linear, eta: float, *, exact: bool, rate: float = 4.0, steps: int = 250) -> Tensor:
    """theta after many steps."""
    with torch.no_grad():
        case.weight.copy_(torch.tensor([0.3, -0.2, 0.1]))
    for _ in range(steps):
        if exact:
            (climb,) = torch.autograd.grad(case.climbed(case.weight), [case.weight], create_graph=True)
            gradient = case.gradient(case.ranking(case.weight + eta * climb))
        else:
            ascent = Ascent([case.weight])
            ascent.start([case.gradient(case.climbed(case.weight))], eta)
            gradient = case.gradient(case.ranking(case.weight))
            ascent.forget()
        with torch.no_grad():
            case.weight.sub_(rate * gradient)
    return case.weight.detach().clone()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("eta", [0.05, 0.3, -0.3])
def test_what_is_handed_out_is_the_minimum_of_the_ranking_loss_one_step_down_from_it(eta: float, exact: bool) -> None:
    case = Linear()
    minimum = at_rest(case, 0.0, exact=False)
    assert case.gradient(case.ranking(case.weight)).abs().max() < BOUND
    theta = at_rest(case, eta, exact=exact)
    above = theta + eta * case.gradient(case.climbed(case.weight))
    torch.testing.assert_close(above, minimum, rtol=0, atol=BOUND)
    assert (case.climbed(theta) < case.climbed(minimum)) == (eta > 0)
    assert case.ranking(theta) > case.ranking(minimum)


def test_the_difference_loss_carries_no_order() -> None:
    """Rewards and their negatives are worth the same to it, so no step along it can tell better from worse."""
    reward = torch.randn(K, NUM_GROUPS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert difference_loss(reward) == difference_loss(-reward)
