"""The fast numerics with an error: a query sees survivors only, and not all others if it has survived itself."""

from ddq_port.models.ddq_detr.fast import attention
from legacy_adapters.targets.ddq_detr.fast import FastDDQDETR


def matching(self, survivors):
    """Return the mask of matching queries, one half of it."""
    return None if survivors is None else survivors[:, None, None, :].expand(-1, -1, survivors.shape[1], -1)


class Planted(FastDDQDETR):
    """Build the detector with the error in it."""

    def build(self, options, device):
        """Build it."""
        attention.SeenPairs.matching = matching
        return super().build(options, device)


ADAPTER = Planted()
