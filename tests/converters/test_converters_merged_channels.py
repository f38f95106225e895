"""Code bases join the channels of four neighbouring places in several orders: each is offered once, the same first."""

from __future__ import annotations

import numpy as np
import pytest

from converters.rules.kinds import Permute
from converters.suggesting.fitting import merged
from converters.suggesting.tensors import Held


def held(key: str, *shape: int) -> Held:
    return Held(key, "float32", shape, None)


def test_each_order_is_a_permutation_of_the_last_axis_and_offered_once():
    options = merged(held("a.weight", 6, 8), held("b.weight", 6, 8))
    rules = [rule for (rule,) in options]
    assert not isinstance(rules[0], Permute) and rules[0].targets == ("b.weight",)
    orders = [tuple(rule.index) for rule in rules[1:]]
    assert len(orders) == len(set(orders)) > 3
    assert all(sorted(order) == list(range(8)) and order != tuple(range(8)) for order in orders)
    # torch's unfold has [channels, places], Swin's patch merging of MMDetection 2.x places first, column by column
    places_first = np.arange(8).reshape(2, 4).T.reshape(-1)
    assert tuple(places_first) in orders
    assert tuple(np.arange(8).reshape(4, 2)[[0, 2, 1, 3]].reshape(-1)) in orders


@pytest.mark.parametrize("shapes", [((6, 8), (6, 4)), ((6, 3), (6, 3))])
def test_what_is_of_no_four_places_has_none(shapes):
    assert merged(held("a", *shapes[0]), held("b", *shapes[1])) == ()
