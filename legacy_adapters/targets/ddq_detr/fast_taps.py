"""Taps of the fast numerics, which decide for all images at once; each image's decision is recorded by itself.

What a decision rests on is told as the legacy numerics have it: boxes and scores of all tokens, candidates only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from torch import Tensor

from ddq_port.models.ddq_detr.fast import costs, decoder, dense, detector, head
from ddq_port.models.ddq_detr.fast.distinct import Kept, Proposals
from ddq_port.models.ddq_detr.queries import DistinctSelection
from legacy_adapters.recording import taps as tap_lib
from legacy_adapters.recording.taps import Decision, Tap
from legacy_adapters.tasks import probes


def taps(model: torch.nn.Module) -> list[Tap]:
    """Watch query selection, both matchings, the noise and the final ranking of a detector with fast numerics."""
    return [
        _of_tokens(model.num_queries),
        _of_queries(model),
        _dense(),
        _detections(),
        *tap_lib.matchings({costs: "match", dense: "dense_match"}),
        *tap_lib.random_taps(),
        *tap_lib.rankings(),
    ]


def _many(owner: Any, attribute: str, name: str, basis: Callable, read: Callable, write: Callable, **more: Any) -> Tap:
    return Tap(owner, attribute, lambda *args, **kwargs: name, read, write, basis=basis, many=True, **more)


def _of_tokens(num_queries: int) -> Tap:
    """Watch the choice of distinct tokens; boxes are made of all tokens to tell what it rests on."""

    def basis(scores: Tensor, coords_of: Callable, any_invalid: Tensor, iou_threshold: float, num: int) -> list[dict]:
        everyone = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)  # [bs, num_tokens]
        boxes = bbox_cxcywh_to_xyxy(coords_of(everyone).sigmoid())  # [bs, num_tokens, 4]
        return [_suppression(*of_image, iou_threshold, num_queries) for of_image in zip(boxes, scores)]

    def read(result: Proposals, *args: Any) -> list[Decision]:
        return [{"keep": tokens[valid]} for tokens, valid in zip(result.tokens, result.valid)]

    def write(
        decisions: list[Decision], own: Proposals, scores: Tensor, coords_of: Callable, *args: Any
    ) -> Proposals:
        tokens, valid = own.tokens.clone(), own.valid.clone()
        for image, decision in enumerate(decisions):
            keep = _indices(decision, "keep", scores.shape[1], tokens)
            if keep is not None and len(keep) <= tokens.shape[1]:
                tokens[image, : len(keep)] = keep
                valid[image] = torch.arange(tokens.shape[1], device=tokens.device) < len(keep)
        return Proposals(tokens, valid, coords_of(tokens))

    return _many(detector, "select_distinct", "distinct", basis, read, write)


def _of_queries(model: torch.nn.Module) -> Tap:
    """Watch which queries stay distinct behind a decoder layer."""
    limit = model.num_queries

    def basis(
        boxes: Tensor, scores: Tensor, candidates: Tensor, selection: DistinctSelection, *how: Any
    ) -> list[dict]:
        xyxy = bbox_cxcywh_to_xyxy(boxes)
        return [
            _suppression(xyxy[image, some], scores[image, some], selection.iou_threshold, limit)
            for image, some in enumerate(candidates)
        ]

    def read(
        result: tuple[Kept, Tensor], boxes: Tensor, scores: Tensor, candidates: Tensor, *args: Any
    ) -> list[Decision]:
        order = scores.float().sort(dim=1, descending=True, stable=True).indices  # [bs, num_matching]
        ranked = zip(order, result[0].mask, candidates)
        # queries of an image, best first -> their numbers among its candidates
        return [{"keep": _number(some)[ranks[mask[ranks]]][:limit]} for ranks, mask, some in ranked]

    def write(
        decisions: list[Decision], own: tuple[Kept, Tensor], boxes: Tensor, scores: Tensor, candidates: Tensor,
        selection: DistinctSelection, *args: Any,
    ) -> tuple[Kept, Tensor]:  # fmt: skip
        mask = own[0].mask.clone()
        for image, decision in enumerate(decisions):
            places = candidates[image].nonzero().view(-1)  # [number of candidates]
            keep = _indices(decision, "keep", len(places), mask)
            if keep is not None:
                mask[image] = False
                mask[image, places[keep]] = True
        return Kept(mask, own[0].settled), mask | mask[:, :1] if selection.mask_rule == "legacy" else mask

    def probe() -> Iterator[tuple]:
        threshold, like = model.selection.iou_threshold, next(model.parameters())
        # the first of two sets: all pairs of the second's 10,000 boxes take 400 MB, and no decoder has as many
        boxes, scores = next(probes.boxes_at_threshold(threshold, limit, like))
        everyone = torch.ones_like(scores, dtype=torch.bool)[None]
        yield bbox_xyxy_to_cxcywh(boxes)[None], scores[None], everyone, model.selection, None

    return _many(decoder, "still_distinct", "distinct", basis, read, write, probe=probe)


def _dense() -> Tap:
    def basis(scores: Tensor, max_num: int) -> list[dict]:
        return [{"scores": of_image} for of_image in scores]

    def read(result: Tensor, *args: Any) -> list[Decision]:
        return [{"keep": of_image} for of_image in result]

    def write(decisions: list[Decision], own: Tensor, scores: Tensor, max_num: int) -> Tensor:
        chosen = own.clone()
        for image, decision in enumerate(decisions):
            keep = _indices(decision, "keep", scores.shape[1], own)
            if keep is not None and len(keep) == own.shape[1]:
                chosen[image] = keep
        return chosen

    return _many(detector, "select_dense", "dense", basis, read, write)


def _detections() -> Tap:
    """Watch the final ranking; pairs are numbered as if queries that are not active were not there."""

    def basis(scores: Tensor, active: Tensor, wanted: Sequence[int]) -> list[dict]:
        return [{"scores": of_image[some].flatten()} for of_image, some in zip(scores, active)]

    def read(result: tuple[Tensor, Tensor], scores: Tensor, active: Tensor, wanted: Sequence[int]) -> list[Decision]:
        classes = scores.shape[-1]
        return [
            {"indices": _number(some)[pairs[:n] // classes] * classes + pairs[:n] % classes}
            for pairs, some, n in zip(result[1], active, wanted)
        ]

    def write(
        decisions: list[Decision], own: tuple[Tensor, Tensor], scores: Tensor, active: Tensor, wanted: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        pairs, classes = own[1].clone(), scores.shape[-1]
        for image, decision in enumerate(decisions):
            places = active[image].nonzero().view(-1)  # [number of active queries]
            forced = _indices(decision, "indices", len(places) * classes, pairs)
            if forced is not None and len(forced) >= wanted[image]:
                forced = forced[: wanted[image]]
                pairs[image, : len(forced)] = places[forced // classes] * classes + forced % classes
        return scores.flatten(1).gather(1, pairs), pairs  # [bs, n * num_classes] -> [bs, most wanted]

    return _many(head, "best_pairs", "detections", basis, read, write)


def _suppression(boxes: Tensor, scores: Tensor, iou_threshold: float, max_num: int) -> dict[str, Any]:
    return {"boxes": boxes, "scores": scores, "iou_threshold": iou_threshold, "max_num": max_num}


def _indices(decision: Decision, slot: str, length: int, like: Tensor) -> Tensor | None:
    """Return the indices that a decision is, where ``like`` is; None if it is none of these, or does not fit."""
    indices = decision.get(slot)
    if indices is None or not tap_lib.within(indices, length):
        return None
    return indices.to(like.device)


def _number(chosen: Tensor) -> Tensor:
    """Return for each place of a mask [n] how many True stand before it, [n]."""
    return chosen.cumsum(0) - chosen.long()
