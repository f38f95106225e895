"""Legacy numerics against fast ones, as a family: what only one makes is listed, everything else is compared."""

import json

from legacy_adapters import registry

from .conftest import PLANTED

LOOSE = ("--tolerance", "fixed", "--rtol", "0.02", "--atol", "0.02", "--replay")


def run(parity, *arguments, variant="tiny_r18", sizes="64x96,80x64"):
    """Run both numerics; return exit code and report."""
    result = parity("run", "--family", "ddq_detr_fast", "--variant", variant, "--size", sizes, "--json", *arguments)
    return result.exit_code, json.loads(result.stdout)


def complete(verdict):
    """Expect that nothing is left without a twin or a reason, and that what matters was compared."""
    coverage = verdict["coverage"]
    assert coverage["unaccounted"] == [] == coverage["lone_calls"], coverage["unaccounted"][:5]
    assert coverage["gradients_on_one_side"] == []
    assert coverage["enclosed_records"] > 0.98 * coverage["excluded_records"]
    (*images,) = verdict["detections"]
    assert images and all(one["matched"] == one["legacy"] == one["new"] == 50 for one in images)


def test_all_of_inference_is_compared_or_seen_in_the_module_around_it(parity):
    exit_code, verdict = run(parity, "--check", "forward", *LOOSE)
    assert (exit_code, verdict["verdict"]) == (0, "MATCH"), verdict["reasons"]
    complete(verdict)


def test_derived_tolerance_accepts_all_records_of_both_passes(parity):
    exit_code, verdict = run(parity, "--check", "forward,loss,grad", "--tolerance", "derived")
    assert (exit_code, verdict["verdict"]) == (0, "MATCH"), verdict["reasons"]
    complete(verdict)
    compared = {stage["name"] for stage in verdict["stages"]}
    assert {"training: losses", "training: gradients", "training: gradient flow"} <= compared


def test_a_planted_error_is_named(parity):
    exit_code, verdict = run(parity, "--check", "forward", "--new-adapter", PLANTED / "fast_pairs.py", *LOOSE)
    assert (exit_code, verdict["verdict"]) == (1, "MISMATCH")
    assert verdict["first_divergence"]["where"] == "decoder.layers.1.self_attn"


def test_every_exclusion_of_the_legacy_side_names_what_is_compared_in_its_place():
    family = registry.get("ddq_detr_fast")
    for variant in family.variants:
        listed = family.exclusions(variant)
        assert all(one.reason and (one.by or one.side == "new") for one in listed)
        # the branches that serve the encoder, and no others, go without the gradients of a whole map of tokens
        assert any(one.name == f"bbox_head.cls_branches.{variant.settings['decoder_layers']}" for one in listed)
