"""Faults in a recorded trace of the new side: edited, incomplete and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from legacy_adapters.recording.trace_writer import INDEX_NAME

from .edits import Choice, Edit, chosen, shards
from .fault import DETECTOR, INCOMPARABLE, MISMATCH, REFUSED, TRACE, Fault

Apply = Callable[[Edit], None]


def _fault(name: str, kind: str, where: str, apply: Apply, outcome: str = MISMATCH, says: str = "") -> Fault:
    return Fault(name, kind, where, apply, place=TRACE, outcome=outcome, says=says)


def _out(name: str, **more: Any) -> Choice:
    return chosen("module_out", name, phase="predict", **more)


def _changed(choice: Choice, change: Callable[[Tensor], Tensor]) -> Apply:
    return lambda edit: edit.change(choice, change)


def _damaged(damage: Callable[[Path], Any]) -> Apply:
    return lambda edit: edit.damage.append(damage)


def _kind(kind: str, phase: str = "train") -> Choice:
    return lambda record: record.kind == kind and record.phase == phase


def _any_of(*choices: Choice) -> Choice:
    return lambda record: any(choice(record) for choice in choices)


def _module(name: str) -> Choice:
    return lambda record: record.kind.startswith("module") and record.name == name


def _set_one(value: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        flat = x.clone().reshape(-1)
        flat[len(flat) // 3] = value
        return flat.view_as(x)

    return change


def _shuffled(x: Tensor) -> Tensor:
    order = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(0))
    return x.reshape(-1)[order].view_as(x)


def _noise_of_same_statistics(x: Tensor) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (noise - noise.mean()) / noise.std()
    return (noise * x.double().std() + x.double().mean()).to(x.dtype)


def _sorted(x: Tensor) -> Tensor:
    return x.reshape(-1).sort().values.view_as(x)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _rewrite_index(change: Callable[[dict], Any]) -> Apply:
    def damage(folder: Path) -> None:
        path = folder / INDEX_NAME
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    return _damaged(damage)


def _count_lower(edit: Edit) -> None:
    calls = [dict(entry) for entry in edit.coverage["leaf_calls"]]
    calls[0]["count"] -= 1
    edit.coverage["leaf_calls"] = calls


def _claim_no_gradient(edit: Edit) -> None:
    edit.coverage["without_gradient"] = [*edit.coverage["without_gradient"], "neck.convs.0.gn.bias"]


def _provenance(**values: Any) -> Apply:
    return lambda edit: edit.provenance.update(values)


FAULTS = (
    _fault("trace_queries_permuted", "values moved inside a record", "decoder.layers.1",
           _changed(_out("decoder.layers.1"), lambda x: x.roll(1, 1))),
    _fault("trace_channels_reversed", "values moved inside a record", "encoder",
           _changed(_out("encoder"), lambda x: x.flip(-1))),
    _fault("trace_gradient_shuffled", "values moved inside a record", "neck.convs.0.conv.weight",
           _changed(chosen("grad", "neck.convs.0.conv.weight"), _shuffled)),
    _fault("trace_sorted", "values moved inside a record", "decoder.ref_point_head",
           _changed(_out("decoder.ref_point_head", call=1), _sorted)),
    _fault("trace_gradient_transposed", "transposed record", "query_map.weight",
           _changed(chosen("grad", "query_map.weight"), lambda x: x.t())),
    _fault("trace_same_statistics", "same statistics", "memory_trans_norm",
           _changed(_out("memory_trans_norm"), _noise_of_same_statistics)),
    _fault("trace_same_statistics_of_input", "same statistics", DETECTOR,
           _changed(chosen("module_in", "decoder", "value", phase="train"), _noise_of_same_statistics)),
    _fault("trace_decision_reversed", "decision", DETECTOR,
           _changed(chosen("tap", "distinct", call=1, phase="predict"), lambda x: x.flip(0)), says="tap `distinct`"),
    _fault("trace_match_exchanged", "decision", "bbox_head",
           _changed(chosen("tap", "match", "cols", call=0), lambda x: x.flip(0)), says="tap `match`"),
    _fault("trace_calls_rotated", "shuffled records", "positional_encoding",
           lambda edit: edit.rotate(_out("positional_encoding"))),
    _fault("trace_two_calls_exchanged", "shuffled records", "decoder.norm",
           lambda edit: edit.rotate(_any_of(_out("decoder.norm", call=1), _out("decoder.norm", call=2)))),
    _fault("trace_layers_exchanged", "shuffled records", "encoder.layers.0",
           lambda edit: edit.rotate(_any_of(_out("encoder.layers.0"), _out("encoder.layers.1")))),
    _fault("trace_losses_rotated", "shuffled records", "loss_cls", lambda edit: edit.rotate(_kind("loss"))),
    _fault("trace_slots_exchanged", "swapped slots", "bbox_head", lambda edit: edit.rotate(_out("bbox_head")),
           says="output 0"),
    _fault("trace_arguments_exchanged", "swapped slots", "decoder.layers.0",
           lambda edit: edit.rotate(_any_of(*(chosen("module_in", "decoder.layers.0.self_attn", slot, phase="predict")
                                              for slot in ("query", "query_pos")))), says="`query`"),
    _fault("trace_rows_and_columns_exchanged", "swapped slots", "bbox_head",
           lambda edit: edit.rotate(chosen("tap", "match", call=0)), says="tap `match`"),
    _fault("trace_output_missing", "missing records", "decoder.norm",
           lambda edit: edit.drop(_out("decoder.norm", call=1)), INCOMPARABLE),
    _fault("trace_input_missing", "missing records", DETECTOR,
           lambda edit: edit.drop(chosen("module_in", "decoder", "valid_ratios", phase="train")), INCOMPARABLE,
           says="`valid_ratios`"),
    _fault("trace_loss_missing", "missing records", "d0.loss_iou",
           lambda edit: edit.drop(chosen("loss", "d0.loss_iou")), INCOMPARABLE),
    _fault("trace_gradients_missing", "missing records", "backbone.layer2.0.conv1.weight",
           lambda edit: edit.drop(_kind("grad")), INCOMPARABLE),
    _fault("trace_empty", "empty trace", DETECTOR, lambda edit: edit.drop(lambda r: r.kind != "param"), INCOMPARABLE,
           says="`backbone`"),
    _fault("trace_without_training", "empty trace", DETECTOR, lambda edit: edit.drop(lambda r: r.phase == "train"),
           INCOMPARABLE, says="`backbone`"),
    _fault("trace_module_renamed", "renamed records", "encoder.layers.1",
           lambda edit: edit.relabel(_module("encoder.layers.1.ffn"), name="encoder.layers.1.mlp"), INCOMPARABLE,
           says="`encoder.layers.1.ffn`"),
    _fault("trace_loss_renamed", "renamed records", "total",
           lambda edit: edit.relabel(chosen("loss", "total"), name="loss"), INCOMPARABLE),
    _fault("trace_output_added", "more records", "encoder",
           lambda edit: edit.repeat(_out("encoder"), slot="1"), INCOMPARABLE),
    _fault("trace_record_repeated", "duplicate record", "'neck.convs.0'",
           lambda edit: edit.repeat(_out("neck.convs.0")), REFUSED),
    _fault("trace_gradient_repeated", "duplicate record", "'level_embed'",
           lambda edit: edit.repeat(chosen("grad", "level_embed")), REFUSED),
    _fault("trace_double", "record dtype", "memory_trans_fc", _changed(_out("memory_trans_fc"), Tensor.double)),
    _fault("trace_bfloat", "record dtype", "neck.convs.1", _changed(_out("neck.convs.1"), Tensor.bfloat16)),
    _fault("trace_decision_int32", "record dtype", DETECTOR,
           _changed(chosen("tap", "distinct", call=0, phase="predict"), Tensor.int), says="tap `distinct`"),
    _fault("trace_flattened", "record shape", "query_map", _changed(_out("query_map", call=0), lambda x: x.flatten())),
    _fault("trace_last_row_cut", "record shape", "encoder.layers.0.norms.1",
           _changed(_out("encoder.layers.0.norms.1"), lambda x: x[:, :-1])),
    _fault("trace_one_axis_more", "record shape", "bbox_head.cls_branches.0",
           _changed(_out("bbox_head.cls_branches.0", call=0), lambda x: x[None])),
    _fault("trace_nan", "NaN or Inf", "decoder.layers.2.ffn",
           _changed(_out("decoder.layers.2.ffn"), _set_one(float("nan")))),
    _fault("trace_gradient_nan", "NaN or Inf", "memory_trans_fc.weight",
           _changed(chosen("grad", "memory_trans_fc.weight"), _set_one(float("nan")))),
    _fault("trace_loss_infinite", "non-finite loss", "d1.dn_loss_bbox",
           _changed(chosen("loss", "d1.dn_loss_bbox"), lambda x: torch.full_like(x, float("inf")))),
    _fault("trace_all_zero", "constant record", "backbone.layer4.1", _changed(_out("backbone.layer4.1"),
           torch.zeros_like)),
    _fault("trace_all_mean", "constant record", "encoder.layers.1.ffn",
           _changed(_out("encoder.layers.1.ffn"), lambda x: torch.full_like(x, x.mean().item()))),
    _fault("trace_state_changed", "state", "backbone.bn1.running_mean",
           _changed(chosen("state", "backbone.bn1.running_mean"), lambda x: x + 1e-3)),
    _fault("trace_state_of_other_parameter", "state", "decoder.layers.0.norms.0.bias",
           lambda edit: edit.rotate(_any_of(*(chosen("state", f"decoder.layers.0.norms.{i}.bias") for i in (0, 1))))),
    _fault("trace_shard_truncated", "damaged shard", ".safetensors", _damaged(lambda folder: _cut(shards(folder)[0])),
           REFUSED),
    _fault("trace_shard_missing", "damaged shard", ".safetensors",
           _damaged(lambda folder: shards(folder)[-1].unlink()), REFUSED),
    _fault("trace_byte_flipped", "damaged shard", "`backbone.conv1`",
           lambda edit: edit.flip_byte(_out("backbone.conv1")), REFUSED),
    _fault("trace_weight_byte_flipped", "damaged shard", "`query_map.weight`",
           lambda edit: edit.flip_byte(chosen("param", "query_map.weight")), REFUSED),
    _fault("trace_index_missing", "damaged index", INDEX_NAME,
           _damaged(lambda folder: (folder / INDEX_NAME).unlink()), REFUSED),
    _fault("trace_index_truncated", "damaged index", INDEX_NAME, _damaged(lambda folder: _cut(folder / INDEX_NAME)),
           REFUSED),
    _fault("trace_other_version", "damaged index", "format version",
           _rewrite_index(lambda index: index.update(format_version=999)), REFUSED),
    _fault("trace_other_seed", "other conditions", "seed is", _provenance(seed=1), INCOMPARABLE),
    _fault("trace_other_dtype", "other conditions", "dtype is", _provenance(dtype="float64"), INCOMPARABLE),
    _fault("trace_fewer_checks", "other conditions", "checks is", _provenance(checks=["forward"]), INCOMPARABLE),
    _fault("trace_leaf_call_missing", "coverage", "leaf calls", _count_lower, INCOMPARABLE),
    _fault("trace_gradient_on_one_side", "coverage", "`neck.convs.0.gn.bias`", _claim_no_gradient, INCOMPARABLE),
)  # fmt: skip
