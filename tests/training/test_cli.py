"""What the command lines take and refuse, before anything is trained."""

import importlib.util
import subprocess
import sys

import pytest
from click.testing import CliRunner

from ddq_port.training.cli import cli as train
from ddq_port.training.eval_cli import cli as evaluate
from ddq_port.training.output.console import repeated
from legacy_adapters.ground.words import one_line


def invoke(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    return result


def refused(command, *arguments, code=2):
    result = invoke(command, *arguments)
    assert result.exit_code == code
    assert result.stdout == "" and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("words", [("run", "nothing.py"), ("nothing.py",), ("--seed", "1", "nothing.py")])
def test_run_is_what_is_meant_without_a_command(words):
    assert "nothing.py is neither a file nor an installed config" in refused(train, *words)


def test_installed_configs_are_named_where_none_is_found():
    assert "ddq-detr-4scale_r50_8xb2-12e_coco" in refused(train, "ddq-detr")


def test_config_by_installed_name():
    text = refused(train, "ddq-detr-4scale_tiny", "--no-preflight")
    assert "data/coco/annotations/instances_train2017.json of train_dataloader is not there" in text


def test_config_that_is_no_program(tmp_path):
    (tmp_path / "broken.py").write_text("model = dict(")
    assert "broken.py cannot be read" in refused(train, tmp_path / "broken.py")


def test_config_without_training(tmp_path):
    (tmp_path / "empty.py").write_text("model = dict(type='X')")
    assert "has no train_dataloader" in refused(train, tmp_path / "empty.py")


@pytest.mark.parametrize(
    "words, text",
    [
        (("--cfg-options", "max_epochs"), "--cfg-options max_epochs sets nothing"),
        (("--cfg-options", "seen=1", "model.backbone.depth.x=1"), "--cfg-options does not fit the config"),
        (("--cfg-options", "optim_wrapper.optimizer.lr=-1"), "Invalid learning rate: -1"),
        (("--cfg-options", "optim_wrapper.optimizer.type=Adm"), "Adm is not in the"),
        (("--cfg-options", "optim_wrapper.optimizer.lr=nan"), "Invalid learning rate: nan"),
        (("--cfg-options", "optim_wrapper.optimizer.lr=abc"), "lr='abc'"),
        (("--cfg-options", "optim_wrapper.optimizer.weight_decy=0.1"), "unexpected keyword argument 'weight_decy'"),
        (("--cfg-options", "train_dataloader.batch_size=0"), "train_dataloader.batch_size is 0; expected a whole"),
        (("--cfg-options", "val_dataloader.num_workers=-1"), "val_dataloader.num_workers is -1; expected a whole"),
        (("--load-from", "nowhere.pth"), "nowhere.pth is not there"),
        (("--resume", "a.pth", "--load-from", "b.pth"), "exclude each other"),
        (("--override-schedule",), "--override-schedule goes with --resume"),
        (("--backbone-weights", "nowhere.pth"), "nowhere.pth is not there"),
        (("--launcher", "pytorch"), "--launcher pytorch finds no RANK in the environment; start with torchrun"),
        (("--launcher", "slurm"), "--launcher slurm finds no SLURM_PROCID in the environment; start with srun"),
        (("--launcher", "mpi"), "Invalid value for '--launcher'"),
        (("--ema", "--ema-momentum", "1"), "Invalid value for '--ema-momentum'"),
    ],
)
def test_refused(config, tmp_path, words, text):
    assert text in refused(train, config, "--work-dir", tmp_path / "new", "--no-preflight", *words)
    assert not (tmp_path / "new").exists()


def test_several_processes_that_would_train_alone(config, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "pass --launcher pytorch" in refused(train, config, "--work-dir", tmp_path / "new")


def test_tensorboard_where_it_is_not_installed(config, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    assert "pip install tensorboard" in refused(train, config, "--work-dir", tmp_path, "--tensorboard")


def test_earlier_training_is_not_overwritten(config, tmp_path):
    (tmp_path / "epoch_3.pth").write_bytes(b"precious")
    assert "holds checkpoints of a training (epoch_3.pth); pass --resume" in refused(
        train, config, "--work-dir", tmp_path
    )
    assert (tmp_path / "epoch_3.pth").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "words, text",
    [
        (("nothing.py", "x.pth"), "nothing.py is neither a file nor an installed config"),
        (("CONFIG", "nowhere.pth"), "nowhere.pth is not there"),
        (("CONFIG", "x.pth", "--out", "no/such/folder/p.json"), "is not a folder; --out writes into one that exists"),
        (("CONFIG", "x.pth", "--cfg-options", "test_evaluator.type=VOCMetric", "--classwise"), "need a CocoMetric"),
        (("CONFIG", "x.pth", "--cfg-options", "test_dataloader.batch_size=x"), "test_dataloader.batch_size is 'x'"),
    ],
)
def test_evaluation_refused(config, words, text):
    assert text in refused(evaluate, *(config if word == "CONFIG" else word for word in words))


def test_outputs_of_an_evaluation_are_not_replaced(config, tmp_path):
    (tmp_path / "p.json").write_text("precious")
    assert "p.json exists" in refused(evaluate, config, "x.pth", "--out", tmp_path / "p.json")
    assert "is not empty" in refused(evaluate, config, "x.pth", "--show-dir", tmp_path)
    assert (tmp_path / "p.json").read_text() == "precious"


@pytest.mark.parametrize(
    "words, found",
    [
        ("c --o a=1 b=2 -q", "c --o a=1 --o b=2 -q"),
        ("--o a=1 c.py", "--o a=1 c.py"),
        ("--o a=1 --o b=2 c=3", "--o a=1 --o b=2 --o c=3"),
        ("--o a -x b=2", "--o a -x b=2"),
        ("--o a=1 -- b=2", "--o a=1 -- b=2"),
        ("x=1 --o", "x=1 --o"),
    ],
)
def test_pairs_that_follow_an_option_belong_to_it(words, found):
    assert repeated(words.split(), "--o") == found.split()


def test_errors_are_one_printable_line():
    assert one_line("a\n  b\x1b[31mc") == "a b\\x1b[31mc"
    assert len(one_line("x" * 9000)) < 2100


@pytest.mark.parametrize(
    "command",
    [
        ("ddq_port.training", "-h"),
        ("ddq_port.training", "run", "-h"),
        ("ddq_port.training.eval_cli", "-h"),
    ],
    ids=" ".join,
)
def test_help_documents_exit_codes_and_imports_nothing_heavy(command):
    module, *words = command
    code = (
        f"import sys, runpy; sys.argv = ['x', *{words!r}]\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "finally: print('HEAVY', sorted({'torch', 'rich', 'mmdet', 'mmcv', 'mmengine', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Exit codes" in result.stdout and "HEAVY []" in result.stdout


def test_a_bug_is_no_verdict():
    code = (
        "import click\nfrom ddq_port.training.output import console\n"
        "@click.command(cls=console.Command)\ndef broken(): raise ZeroDivisionError\n"
        "console.run_main(broken, 'x')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 70 and "ZeroDivisionError" in result.stderr
