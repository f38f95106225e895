"""The tiny configs, which are also merged into the configs of other code bases."""

import ddq_port  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import mmdet.models  # noqa: F401  (registers mmdet's detectors)
import pytest
from mmengine.registry import DefaultScope

from ddq_port import configs
from legacy_adapters import mmdet3, registry
from tests.models import described
from tests.models import layout_of as stored_layout

TINY = [name for name in configs.VARIANTS if name.startswith("tiny")]


@pytest.mark.parametrize("variant", TINY)
def test_mmdets_own_config_becomes_tiny_by_ours(variant):
    base = mmdet3.packaged_config(registry.get("mmdet_ddq").variant(variant).legacy["config"])
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = mmdet3.build_model(base, str(configs.path(configs.VARIANTS[variant])))
    assert described(model, variant) == stored_layout(variant, "mmdet_ddq", "legacy")
    assert type(model).__module__.startswith("mmdet.")


@pytest.mark.parametrize(
    ("variant", "block"), [("tiny_4scale", "Bottleneck"), ("tiny_1class", "Bottleneck"), ("tiny_r18", "BasicBlock")]
)
def test_blocks_of_the_backbone_are_those_of_the_full_model_but_for_one_variant(variant, block):
    backbone = mmdet3.build_model(str(configs.path(configs.VARIANTS[variant]))).backbone
    assert {type(block).__name__ for block in backbone.layer3} == {block}


def test_configs_of_one_class_and_of_three_agree_in_everything_else():
    three, one = (configs.load(configs.VARIANTS[name]).model for name in ("tiny_4scale", "tiny_1class"))
    assert (one.bbox_head.num_classes, three.bbox_head.num_classes) == (1, 3)
    one.bbox_head.num_classes, one.test_cfg = three.bbox_head.num_classes, three.test_cfg
    assert one == three
