"""Run in a process of its own: load a checkpoint strictly into the official model and save what the model holds then.

``python official_model.py REPO CONFIG OVERRIDES CHECKPOINT OUT``

OVERRIDES is a Python file with a ``model`` to merge into the config's, or empty.
"""

import sys


def main(repo: str, config: str, overrides: str, checkpoint: str, out: str) -> None:
    import torch

    from legacy_adapters.families.ddq_detr.legacy import ADAPTER

    model = ADAPTER.build(dict(repo=repo, config=config, overrides=overrides), "cpu")
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"], strict=True)
    files = {name: sys.modules[name].__file__ for name in ("mmdet", "mmcv", "mmengine", "projects")}
    torch.save({"files": files, "state_dict": model.state_dict()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
