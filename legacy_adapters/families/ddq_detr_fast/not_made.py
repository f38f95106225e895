"""What the fast numerics do not make, or make of other things, and what is compared in its place.

All of it is within a module that both sides call on the same input. Its output, and in training the gradient of that,
are compared, and so are all gradients of parameters.
"""

from __future__ import annotations

from typing import Iterator, Tuple

from legacy_adapters.family import LEGACY, NEW, Exclusion, Variant

_FOLDED = "the frozen normalisation is part of the convolution, whose output is made at once"
_ENCODING = "without padding that of a row and that of a column are made, and not of each place"
_HANDED_ON = "shapes, centres and keys are handed on in another form"
_QUERIES_LAST = "offsets and weights are projected with the queries last, and samples summed as they are taken"
_BLOCKS = "blocks of queries that see each other, in place of a mask of all pairs"
_ROWS = "the layers of a feed-forward network are run on a part of the rows at a time, without their containers"
_LAST_LAYER = "inference predicts from the last layer only"
_TERMS = "losses of all layers and images are computed at once"
_CHOSEN = "gradients go through the chosen tokens only, of which it is computed once more"
_CONTENT = "the content of the chosen tokens only, which is the decoder's input"
#: What a call of a module takes, and the gradient of that.
_GIVEN = ("module_in", "in_grad")
_GRADIENTS = ("in_grad", "out_grad")
_EVERYTHING = ("*",)


def not_made(variant: Variant) -> Tuple[Exclusion, ...]:
    """List the records of a model that only one of the numerics makes, or both make of other things."""
    return tuple(_of_model(variant.settings["decoder_layers"]))


def _of_model(layers: int) -> Iterator[Exclusion]:
    for name in ("conv1", "bn1", "relu"):
        yield from _within("backbone", (LEGACY,), "backbone." + name, _FOLDED)
    yield from _within("backbone.layer*.*", (LEGACY,), "backbone.layer*.*.*", _FOLDED)
    yield from _within("encoder", (LEGACY, NEW), "positional_encoding", _ENCODING)
    for part, attention in (("encoder", "self_attn"), ("decoder", "cross_attn")):
        layer, of_layer = part + ".layers.*", part + ".layers.?"  # as a pattern of paths, and of names
        for name in ("sampling_offsets", "attention_weights", "dropout"):
            inside = "{}.{}.{}".format(of_layer, attention, name)
            yield from _within("{}.{}".format(layer, attention), (LEGACY,), inside, _QUERIES_LAST)
        yield from _within(part, (LEGACY,), part, _HANDED_ON, _GIVEN)
        yield from _within(layer, (LEGACY,), of_layer, _HANDED_ON, _GIVEN)
        yield from _within("{}.{}".format(layer, attention), (LEGACY,), "{}.{}".format(of_layer, attention), _HANDED_ON, _GIVEN)
        yield from _within(layer, (LEGACY, NEW), of_layer + ".ffn*", _ROWS)
    attention = "decoder.layers.*.self_attn"
    yield from _within(attention, (LEGACY,), "decoder.layers.?.self_attn", _BLOCKS, _GIVEN)
    yield from _within(attention, (LEGACY, NEW), "decoder.layers.?.self_attn.*", _BLOCKS)
    for name in ("decoder.layers.?", "decoder.layers.?.self_attn"):
        yield Exclusion(NEW, "module_in", name, "survivors", _BLOCKS)
    yield Exclusion(NEW, "module_out", "decoder", "3", "tells whether the selections came to an end")
    yield from _of_choice(layers)
    yield from _of_head(layers)


def _of_choice(layers: int) -> Iterator[Exclusion]:
    """List what belongs to the choice of tokens; the branches that serve the encoder are the last ones."""
    both = (LEGACY, NEW)
    yield from _within("decoder", both, "query_map", _CONTENT, apart=True)
    for name in ("memory_trans_fc", "memory_trans_norm"):
        yield from _within("encoder", both, name, _CHOSEN, _GRADIENTS, apart=True)
        yield from _within("encoder", (NEW,), name, _CHOSEN)
    for kind in ("", "aux_"):
        classes = "bbox_head.{}cls_branches.{}".format(kind, layers)
        yield from _within("encoder", both, classes, _CHOSEN, _GRADIENTS, apart=True)
        yield from _within("encoder", (NEW,), classes, _CHOSEN)
        yield from _within("encoder", both, "bbox_head.{}reg_branches.{}*".format(kind, layers), _CHOSEN, apart=True)


def _of_head(layers: int) -> Iterator[Exclusion]:
    for layer in range(layers - 1):
        for kind in ("cls", "reg"):
            yield from _within("bbox_head", (LEGACY,), "bbox_head.{}_branches.{}*".format(kind, layer), _LAST_LAYER)
    yield from _within("bbox_head", (LEGACY,), "bbox_head.loss_*", _TERMS)
    yield from _within("bbox_head", (LEGACY,), "bbox_head.aux_loss_for_dense*", _TERMS)


def _within(
    by: str, sides: Tuple[str, ...], name: str, reason: str, kinds: Tuple[str, ...] = _EVERYTHING, apart: bool = False
) -> Iterator[Exclusion]:
    for side in sides:
        for kind in kinds:
            yield Exclusion(side, kind, name, "*", reason, by=by, apart=apart)
