"""What options of `ddq-train run` make of a config; nothing is built."""

from pathlib import Path

import pytest
import torch

from ddq_port import configs
from ddq_port.training.loading import weights
from ddq_port.training.settings.config import annotations, for_training
from ddq_port.training.settings.options import ConfigError, TrainOptions


@pytest.fixture
def made(config, tmp_path):
    """Return a function that gives the config of a training and the notes on it."""

    def call(**options):
        return for_training(TrainOptions(**{"config": config, "work_dir": tmp_path / "work", **options}))

    return call


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that saves a checkpoint in the work dir as mmengine does, without a model in it."""

    def save(name, noted=True, **content):
        path = tmp_path / "work" / name
        path.parent.mkdir(exist_ok=True)
        torch.save(content or dict(state_dict={}, optimizer={}, message_hub={}), path)
        if noted:
            (path.parent / "last_checkpoint").write_text(str(path))
        return path

    return save


def hooks(cfg):
    return [hook["type"] for hook in cfg.custom_hooks]


def test_without_options(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg, notes = for_training(TrainOptions(config=config))
    assert cfg.work_dir == "work_dirs/two_shapes" and not Path("work_dirs").exists()
    assert cfg.optim_wrapper.type == "OptimWrapper" and cfg.launcher == "none" and not cfg.resume and notes == []
    assert hooks(cfg) == ["ddq_port.ExactResumeHook", "ddq_port.StopOnNonFiniteLossHook"]


def test_options_of_the_optimization(made):
    cfg, _ = made(amp="bf16", auto_scale_lr=True, seed=7, deterministic=True, ema=0.001)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ("ddq_port.AmpOptimWrapper", "bfloat16")
    assert cfg.optim_wrapper.loss_scale == 1.0 and cfg.optim_wrapper.clip_grad.max_norm == 0.1
    assert made(amp="fp16")[0].optim_wrapper.loss_scale == "dynamic"
    assert cfg.auto_scale_lr == dict(base_batch_size=16, enable=True)
    assert cfg.randomness == dict(seed=7, deterministic=True)
    assert cfg.custom_hooks[-1].type == "EMAHook" and cfg.custom_hooks[-1].momentum == 0.001


def test_fast_numerics_are_a_setting_of_the_model(made):
    cfg, notes = made(fast=True)
    assert cfg.model.numerics == "fast" and any("preflight" in note for note in notes)
    assert cfg.optim_wrapper.optimizer.type == "ddq_port.FusedAdamW"
    legacy = made()[0]
    assert "numerics" not in legacy.model and legacy.optim_wrapper.optimizer.type == "AdamW"
    mine = made(fast=True, cfg_options=("optim_wrapper.optimizer.foreach=True",))[0]
    assert mine.optim_wrapper.optimizer.type == "AdamW"
    with pytest.raises(ConfigError, match="--fast: .* is mmdet.DINO; only ddq_port.DDQDETR"):
        made(fast=True, cfg_options=("model.type=mmdet.DINO",))


def test_hooks_of_the_config_stay_as_they_are(made, tmp_path, config):
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"_base_ = [{config!r}]\n"
        "custom_hooks = [dict(type='EMAHook', momentum=0.5), dict(type='ddq_port.StopOnNonFiniteLossHook')]\n"
    )
    cfg, notes = made(config=str(mine), ema=0.001)
    assert hooks(cfg) == ["EMAHook", "ddq_port.StopOnNonFiniteLossHook", "ddq_port.ExactResumeHook"]
    assert cfg.custom_hooks[0].momentum == 0.5 and notes == ["--ema: the config has an EMAHook, which stays as it is"]


def test_loop_that_exact_resume_does_not_know(made):
    cfg, notes = made(cfg_options=("train_cfg.type=MyLoop",))
    assert hooks(cfg) == ["ddq_port.StopOnNonFiniteLossHook"] and "MyLoop" in notes[0]


def test_scaling_needs_the_batch_that_the_rate_is_for(made, tmp_path, config):
    mine = tmp_path / "mine.py"
    mine.write_text(f"_base_ = [{config!r}]\nauto_scale_lr = dict(_delete_=True)\n")
    with pytest.raises(ConfigError, match="auto_scale_lr.base_batch_size"):
        made(config=str(mine), auto_scale_lr=True)


def test_tensorboard_beside_what_the_config_has(made, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    cfg, _ = made(tensorboard=True)
    assert [backend["type"] for backend in cfg.visualizer.vis_backends] == ["LocalVisBackend", "TensorboardVisBackend"]


def test_settings_by_name(made):
    cfg, notes = made(cfg_options=("train_cfg.max_epochs=3", "train_dataloader.batch_size=1", "model.num_query=9"))
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size, cfg.model.num_query) == (3, 1, 9)
    assert notes == ["--cfg-options: `model.num_query` is not in the config so far; check its spelling"]


def test_resume_goes_on_with_the_checkpoint_noted_last(made, checkpoint):
    checkpoint("epoch_1.pth")
    checkpoint("best_epoch_1.pth", noted=False, state_dict={})
    cfg, notes = made(resume="auto")
    assert cfg.resume is True and cfg.load_from is None and notes == []


def test_resume_where_there_is_nothing_yet_begins(made):
    cfg, notes = made(resume="auto")
    assert not cfg.resume and "the training begins" in notes[0]


def test_a_job_that_is_queued_again_goes_on(made, checkpoint, tmp_path):
    torch.save(dict(state_dict={}), tmp_path / "start.pth")
    start = str(tmp_path / "start.pth")
    cfg, _ = made(resume="auto", load_from=start)
    assert (cfg.resume, cfg.load_from) == (False, start)
    checkpoint("epoch_1.pth")
    cfg, _ = made(resume="auto", load_from=start)
    assert (cfg.resume, cfg.load_from) == (True, None)


def test_resume_after_a_kill_takes_the_complete_one(made, checkpoint, tmp_path):
    checkpoint("last_complete.pth", noted=False)
    (tmp_path / "work" / "last_checkpoint").write_text("")
    assert made(resume="auto")[0].resume is True


def test_resume_among_checkpoints_without_state_is_refused(made, checkpoint):
    checkpoint("best_epoch_1.pth", noted=False)
    with pytest.raises(ConfigError, match="none of which can be resumed"):
        made(resume="auto")


def test_checkpoints_of_another_training_are_not_overwritten(made, checkpoint, tmp_path):
    mine = checkpoint("epoch_1.pth")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "epoch_9.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"other holds checkpoints .*\(epoch_9.pth\), and not .*epoch_1.pth"):
        made(resume=str(mine), work_dir=tmp_path / "other")
    assert made(resume=str(mine))[0].resume is True


def test_resume_by_name(made, checkpoint, tmp_path):
    path = checkpoint("epoch_1.pth")
    cfg, _ = made(resume=str(path), work_dir=tmp_path / "other")
    assert (cfg.resume, cfg.load_from) == (True, str(path))


def test_pretrained_weights_are_not_loaded_before_a_checkpoint_that_has_them(made, tmp_path, config):
    torch.save(dict(state_dict={}), tmp_path / "start.pth")
    mine = tmp_path / "mine.py"
    init = "dict(_delete_=True, type='Pretrained', checkpoint='nowhere.pth')"
    mine.write_text(f"_base_ = [{config!r}]\nmodel = dict(backbone=dict(init_cfg={init}))\n")
    begin = dict(config=str(mine), load_from=str(tmp_path / "start.pth"))
    with pytest.raises(weights.WeightsError, match="nowhere.pth, which is not there"):
        made(config=str(mine))
    assert made(**begin)[0].model.backbone.init_cfg is None
    with pytest.raises(weights.WeightsError, match="nowhere.pth"):  # parts may lack, so they begin as the config says
        made(**begin, partial=True)


def test_annotation_files_of_wrapped_data_sets():
    inner = dict(ann_file="a.json", data_root="d/")
    wrapped = dict(type="RepeatDataset", dataset=dict(type="ConcatDataset", datasets=[inner, dict(ann_file="/b.json")]))
    assert list(annotations(wrapped)) == ["d/a.json", "/b.json"]
    assert list(annotations(dict(ann_file="a.json", backend_args=dict(backend="petrel")))) == []


@pytest.mark.parametrize("name", configs.names())
def test_installed_configs_keep_the_best_checkpoint(name):
    assert configs.load(name).default_hooks.checkpoint.save_best == "coco/bbox_mAP"
