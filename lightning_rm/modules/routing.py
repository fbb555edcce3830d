"""The router loss of a mixture of experts beside a method's own: whatever the method, and logged either way."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lightning_rm.batch import Routing


def with_routing(losses: Mapping[str, Tensor], routing: Routing | None) -> dict[str, Tensor]:
    """Return a method's losses with those of the routers: `router_loss`, added to `loss` by its weight, and
    `dead_experts`.

    Args:
        losses: of the method, the one to minimise under `loss`.
        routing: of a mixture of experts; None changes nothing.
    """
    if routing is None:
        return dict(losses)
    told = {"router_loss": routing.loss, "dead_experts": routing.dead}
    if not routing.weight:
        return {**losses, **told}
    return {**losses, "loss": losses["loss"] + routing.weight * routing.loss, **told}
