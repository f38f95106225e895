"""Run in a process of its own: train the official model for one step and save what its Runner would save.

``python legacy_training_step.py REPO OVERRIDES WEIGHTS INPUTS OUT``

WEIGHTS and INPUTS are files as ``ddq-parity`` makes them.
"""

import sys


def main(repo: str, overrides: str, weights: str, inputs: str, out: str) -> None:
    import torch
    from safetensors.torch import load_file

    from legacy_adapters import mmdet3
    from legacy_adapters.families.ddq_detr.legacy import ADAPTER
    from legacy_adapters.inputs import Batch

    config = "projects/configs/ddq_detr/ddq-detr-4scale_r50_8xb2-12e_coco.py"
    model = ADAPTER.build(dict(repo=repo, config=config, overrides=overrides), "cpu")
    model.load_state_dict(load_file(weights), strict=True)

    from mmengine.logging import MessageHub
    from mmengine.runner import save_checkpoint

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    model.train()
    _, total = mmdet3.losses(model, Batch.from_tensors(load_file(inputs), "cpu", torch.float32))
    total.backward()
    optimizer.step()
    hub = MessageHub.get_instance("train")
    hub.update_scalar("train/loss", total.item())
    parts = dict(
        meta=dict(epoch=0, iter=1, experiment_name="step"),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=hub.state_dict(),
    )
    save_checkpoint(parts, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
