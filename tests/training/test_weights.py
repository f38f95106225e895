"""Weights from files: `.safetensors` for mmengine, backbones without torchvision, what does not fit."""

import json

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

from ddq_port import checkpoints, configs
from ddq_port.registry import MODELS
from ddq_port.training.loading import weights
from ddq_port.training.loading.weights import Fit, WeightsError

META = dict(classes=("square", "disc"), palette=[(1, 2, 3), (4, 5, 6)])
SWIN = dict(
    type="SwinTransformer", embed_dims=8, depths=[1, 1], num_heads=[1, 2], strides=(4, 2), window_size=2,
    out_indices=(0, 1), convert_weights=True, init_cfg=dict(type="Pretrained", checkpoint="swin.pth"),
)  # fmt: skip


def resnet():
    return configs.load("ddq-detr-4scale_tiny").model.backbone


def filled(cfg):
    """Return the state dict of a backbone with other numbers in every tensor."""
    torch.manual_seed(0)
    built = MODELS.build(ConfigDict({**cfg, "init_cfg": None}))
    return {
        key: torch.randn_like(value) if value.is_floating_point() else value
        for key, value in built.state_dict().items()
    }


def saved(path, state, **metadata):
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path, metadata=metadata or None)
    else:
        torch.save(state, path)
    return path


def initialised(cfg, change):
    """Build a backbone with a changed config and let mmengine initialise it."""
    built = MODELS.build(ConfigDict({**cfg, **change}))
    built.init_weights()
    return built.state_dict()


def test_mmengine_reads_weights_and_class_names(tmp_path):
    state = {"a": torch.arange(6.0).reshape(2, 3)}
    file = saved(tmp_path / "w.safetensors", state, dataset_meta=json.dumps(META), layout="new", ddq_manifest="{}")
    found = CheckpointLoader.load_checkpoint(str(file), map_location="cpu")
    assert torch.equal(found["state_dict"]["a"], state["a"])
    assert found["meta"] == dict(dataset_meta=META, layout="new")


def test_mmengine_reads_shards_behind_an_index(tmp_path):
    saved(tmp_path / "w-1.safetensors", {"a": torch.zeros(2)}, layout="new")
    saved(tmp_path / "w-2.safetensors", {"b": torch.ones(2)})
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps(dict(weight_map=dict(a="w-1.safetensors", b="w-2.safetensors"))))
    found = CheckpointLoader.load_checkpoint(str(index), map_location="cpu")
    assert sorted(found["state_dict"]) == ["a", "b"] and found["meta"] == dict(layout="new")
    before = weights.sha256(index)
    saved(tmp_path / "w-2.safetensors", {"b": torch.zeros(2)})
    assert weights.sha256(index) != before


@pytest.mark.parametrize(
    "name, mine",
    [
        ("w.safetensors", True),
        ("a b/w.safetensors.index.json", True),
        ("w.pth", False),
        ("w.safetensors.pth", False),
        ("https://x/w.safetensors", False),
        ("s3://x/w.safetensors", False),
    ],
)
def test_which_files_are_read_so(name, mine):
    assert checkpoints.is_safetensors(name) is mine


@pytest.mark.parametrize(
    "name, content, text",
    [
        ("w.safetensors", b"no header", "damaged or no safetensors file"),
        ("w.safetensors.index.json", b"[]", "not an index of shards"),
        ("w.pth", b"no pickle", "is not a checkpoint"),
        ("w.pth", b"PK\x03\x04", "is not a checkpoint, or damaged"),
        ("w.pth", b"(U\xe9\xe9", "is not a checkpoint, or damaged"),  # each of these is another exception in torch
        ("w.pth", b"h\x05", "is not a checkpoint, or damaged"),
        ("w.pth", b"0", "is not a checkpoint, or damaged"),
        ("w.pth", b"\x80\x02J\x00.", "is not a checkpoint, or damaged"),
        ("w x.pth", b"no pickle", "`ddq-convert inspect '.*w x.pth'` tells what it is"),
        ("w.pth", b"", "w.pth is empty; copy it again"),
    ],
)
def test_damaged_file(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=text):
        weights.read(tmp_path / name)


@pytest.mark.parametrize("name, other", [("a.pth", ".safetensors"), ("a", ".safetensors"), ("a.safetensors", ".pth")])
def test_a_file_by_the_name_of_the_other_format(tmp_path, name, other):
    saved(tmp_path / f"b{other}", {"w": torch.ones(2)}).rename(tmp_path / name)
    with pytest.raises(WeightsError, match=f"is a {other} by another name, .*call it NEW{other}"):
        weights.read(tmp_path / name)


def test_a_folder_is_not_called_missing(tmp_path):
    with pytest.raises(WeightsError, match="is no file, expected .*`ddq-convert inspect .*` tells what it is"):
        weights.read(tmp_path)


def test_missing_shard(tmp_path):
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps(dict(weight_map=dict(a="gone.safetensors"))))
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        weights.read(index)


def test_objects_in_a_pickle_are_not_loaded(tmp_path):
    torch.save(dict(state_dict={}, log=Fit(0, (), (), ())), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds objects that torch does not load"):
        weights.read(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_backbone_from_a_file(tmp_path, suffix, prefix):
    state = filled(resnet())
    given = {prefix + key: value for key, value in state.items()}
    given |= {"neck.x": torch.zeros(1)} if "backbone" in prefix else {f"{prefix}fc.weight": torch.zeros(10, 4)}
    file = saved(tmp_path / f"w{suffix}", given)
    found = initialised(resnet(), weights.backbone_init(resnet(), file))
    assert all(torch.equal(found[key], state[key]) for key in state if "num_batches" not in key)


def test_backbone_that_does_not_fit(tmp_path):
    state = filled(resnet())
    del state["layer1.0.conv1.weight"]
    file = saved(tmp_path / "w.pth", state)
    with pytest.raises(
        WeightsError, match=r"gives 264 of the 265 tensors of this ResNet; it lacks `layer1.0.conv1.weight`"
    ):
        weights.backbone_init(resnet(), file)
    wider = saved(tmp_path / "wide.pth", filled({**resnet(), "base_channels": 32}))
    with pytest.raises(WeightsError, match=r"`conv1.weight` as \[32, 3, 7, 7\] where the model has \[4, 3, 7, 7\]"):
        weights.backbone_init(resnet(), wider)


def original_name(key):
    """Return the name that the original Swin repository has for a tensor of mmdet's."""
    names = {
        "stages": "layers", "w_msa.": "", "ffn.layers.0.0": "mlp.fc1", "ffn.layers.1": "mlp.fc2", "projection": "proj",
    }  # fmt: skip
    for ours, theirs in names.items():
        key = key.replace(ours, theirs)
    return key


@pytest.mark.parametrize("form", ["original", "detector"])
def test_swin_from_a_file(tmp_path, form):
    state = {key: value for key, value in filled(SWIN).items() if not key.startswith("norm")}
    names = dict(original=original_name, detector=lambda key: f"backbone.{key}")[form]
    given = {names(key): value for key, value in state.items()}
    file = saved(tmp_path / "w.pth", dict(model=given) if form == "original" else given)
    found = initialised(SWIN, weights.backbone_init(SWIN, file))
    # the original's patch merging has another order of channels, which mmdet puts right
    same = [key for key in state if "downsample" not in key or form != "original"]
    assert len(same) > 20 and all(torch.equal(found[key], state[key]) for key in same)


def test_torchvision_that_cannot_be_imported(monkeypatch):
    def fails(name):
        raise ImportError("no torchvision here")

    monkeypatch.setattr("importlib.import_module", fails)
    model = configs.load("ddq-detr-4scale_r50_8xb2-12e_coco").model
    with pytest.raises(
        WeightsError, match=r"model.backbone.init_cfg wants torchvision://resnet50, .*--backbone-weights FILE"
    ):
        weights.check_pretrained(model)
    weights.without_pretrained(model)
    weights.check_pretrained(model)
    assert model.backbone.init_cfg is None


def test_local_file_that_is_missing():
    model = configs.load("ddq-detr-4scale_swinl_8xb2-30e_coco").model
    model.backbone.init_cfg.checkpoint = "swin_large_patch4_window12_384_22k.pth"
    with pytest.raises(
        WeightsError, match=r"swin_large_patch4_window12_384_22k.pth, which is not there; pass --backbone"
    ):
        weights.check_pretrained(model)


def test_fit_tells_what_is_left_over():
    fit = Fit.of(dict(a=(1,), b=(2,), c=(3,)), dict(a=(1,), b=(5,), d=(4,)))
    assert not fit.whole and fit.taken == 1
    assert fit.told("the model") == (
        "gives 1 of the 3 tensors of the model; it lacks `c`; it has, without use, `d`; it has `b` as [5] where the "
        "model has [2]"
    )
    assert Fit.of(dict(a=(1,)), dict(a=(1,))).whole


def test_weights_alone_cannot_be_resumed(tmp_path):
    torch.save(dict(state_dict={}, meta={}, optimizer={}), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="lacks message_hub; pass it as --load-from"):
        weights.check_resumable(tmp_path / "w.pth")
