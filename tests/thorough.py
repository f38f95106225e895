"""Tests that take long, and are left to ``make test-thorough``: they do more of what a quick one does as well.

What stands beside a test are the ids of its cases that are quick enough, and stay with the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

#: File and function of a test -> ids of the cases that ``make test`` runs all the same.
THOROUGH: Mapping[str, Collection[str]] = {
    "converters/test_converters_bombs.py::test_bombs_beside_a_model_are_carried_or_refused_in_little_space": (),
    "converters/test_converters_cli.py::test_full_disk": ("a.safetensors-4000000",),
    "converters/test_converters_corpus.py::test_flipped_bits_are_found": ("save",),
    "converters/test_converters_crashes.py::test_a_full_disk": ("n.safetensors-1m",),
    "converters/test_converters_crashes.py::test_killed_at_every_step_of_publishing": (),
    "converters/test_converters_crashes.py::test_killed_at_random_moments": ("5-options0",),
    "converters/test_converters_layouts.py::test_the_layout_of_a_built_in_model_is_the_stored_one": (),
    "converters/test_converters_mmdet.py::test_files_go_there_and_back": (".safetensors-tiny_r18",),
    "converters/test_converters_mmdet.py::test_mmdet_has_the_legacy_layout": ("tiny_r18",),
    "converters/test_converters_statements.py::test_a_file_that_is_called_ready_loads_and_any_other_is_converted": (
        "state_dict-legacy",
    ),
    "converters/test_converters_switches.py::test_dtype_there_and_back": ("bf16-dtype1-.safetensors",),
    "converters/test_converters_verify.py::test_a_manifest_of_other_kinds_of_values_is_one_line": (),
    "converters/test_converters_verify.py::test_a_well_forged_manifest_is_told": (
        "_other_rule_text-has other rules than its mapping version",
    ),
    "converters/test_converters_verify.py::test_same_input_same_bytes": ("sharded",),
    "converters/test_converters_wrapping.py::test_key_and_prefix_choose": ("--prefix without its dot",),
    "converters/test_converters_wrapping.py::test_wrapped_weights_are_found_told_and_converted": (
        "mixed the other way-legacy",
    ),
    "cuda_standin/test_sides.py::test_no_variant_mixes_devices": (),
    "cuda_standin/test_sides.py::test_the_port_waits_no_more_than_it_did": (),
    "cuda_standin/test_sides.py::test_what_is_refused_ends_a_variant": (),
    "cuda_standin/test_standin.py::test_error_planted_in_the_port_is_told_with_its_place": (
        "array of a cost on the GPU",
    ),
    "data/test_images.py::test_what_the_loader_returns_decides_how_an_image_is_turned": ("6-PNG",),
    "data/test_mending.py::test_it_is_mended_and_told": ("names",),
    "ddq_main/test_ddq_main_faults.py::test_fault_is_seen_and_named": (),
    "ddq_port/test_distinct_reference.py::test_matching_losses_are_those_of_active_queries": ("few objects-exact",),
    "ddq_port/test_distinct_reference.py::test_selection_among_many_tokens": ("9999",),
    "ddq_port/test_distinct_reference.py::test_sequences_of_layers": ("repeated-exact",),
    "ddq_port/test_mmdet_tooling.py::test_runner_trains_and_the_loss_falls": (),
    "ddq_port/test_robust_training.py::test_training_step_is_finite": ("few tokens-tiny_1class-exact-float32",),
    "faults/test_faults.py::test_fault_is_detected_and_named": (
        "eps_layer_norm-exact",
        "labels_from_one-exact",
        "level_starts_shifted-exact",
        "one_element-exact",
        "trace_decision_reversed-derived",
        "trace_same_statistics-exact",
        "weight_negative-exact",
    ),
    "faults/test_faults.py::test_rewrite_raises_no_alarm": ("whole_number_in_dense_loss",),
    "parity/test_api.py::test_the_examples_of_the_documentation_run": (),
    "parity/test_autocast.py::test_error_of_autocast_is_named_by_bits": ("float32_boxes-bbox_head",),
    "parity/test_autocast.py::test_inference_under_autocast_has_the_same_bits": ("tiny_swinl-fp16",),
    "parity/test_bad_input.py::test_kept_traces_compare_again": (),
    "parity/test_bisect_runs.py::test_bisect_replaces_nothing_without_force_and_works_in_a_folder_that_was_moved": (),
    "parity/test_bisect_runs.py::test_bisect_under_derived_tolerance_shows_in_float64_what_only_that_shows": (),
    "parity/test_bisect_runs.py::test_script_shows_the_error_and_no_more_once_it_is_mended": (),
    "parity/test_ddq_main_goldens.py::test_detector_matches_and_all_of_it_is_exercised": (),
    "parity/test_degenerate.py::test_a_checkpoint_of_constants_is_not_comparable": ("loss-1.0",),
    "parity/test_detr_goldens.py::test_transformer_matches_under_the_dropped_elements_of_2_x": ("deformable_refine",),
    "parity/test_families.py::test_planted_error_is_named_and_bisected": ("written_run",),
    "parity/test_families.py::test_port_is_checked_with_a_recording": ("written_run",),
    "parity/test_families.py::test_port_that_takes_a_fused_projection_apart_matches_within_derived_tolerance": (),
    "parity/test_families.py::test_port_with_renamed_and_regrouped_modules_of_dino_matches": (),
    "parity/test_families.py::test_traces_are_compared_and_audited": (),
    "parity/test_goldens.py::test_match_on_one_thread_with_the_plainest_kernels": ("tiny_4scale",),
    "parity/test_goldens.py::test_match_whatever_the_threads_and_kernels": (),
    "parity/test_goldens.py::test_planted_error_exits_1_and_names_where_it_starts": ("swapped_aux_branch",),
    "parity/test_initial.py::test_a_planted_error_is_named": ("init_class_branches_anew",),
    "parity/test_isolation.py::test_as_many_places_as_faults": ("fewer_detections+threshold_of_selection",),
    "parity/test_isolation.py::test_beside_steps_of_a_training_the_rest_is_isolated": (),
    "parity/test_isolation.py::test_code_between_modules_is_named": (),
    "parity/test_isolation.py::test_right_port_has_no_place": (),
    "parity/test_isolation.py::test_under_derived_tolerance_two_errors_are_seen_apart": (),
    "parity/test_live_mmdet.py::test_audit_lists_the_decisions_of_every_phase": (),
    "parity/test_live_mmdet.py::test_derived_tolerance_finds_what_exact_finds": (),
    "parity/test_live_mmdet.py::test_edge_case": (),
    "parity/test_live_mmdet.py::test_float64_on_both_sides": (),
    "parity/test_live_mmdet.py::test_other_variants": (),
    "parity/test_live_mmdet.py::test_planted_error_exits_1_and_names_where_it_starts": (
        "ascending_dense-loss-the detector",
    ),
    "parity/test_live_mmdet.py::test_replay_does_not_hide_a_wrong_decision_or_request": (),
    "parity/test_mmdet2_goldens.py::test_detector_matches_and_all_of_it_is_exercised": ("retinanet",),
    "parity/test_ranks.py::test_error_that_one_process_cannot_show_is_named_with_step_and_rank": (),
    "parity/test_ranks.py::test_in_one_process_such_an_error_does_not_show": (),
    "parity/test_resuming.py::test_every_bound_of_a_derived_tolerance_holds_too": (),
    "parity/test_resuming.py::test_legacy_side_goes_on_from_the_ports_checkpoint": (),
    "parity/test_resuming.py::test_wrong_optimizer_state_is_named_where_it_is_taken_up": (),
    "parity/test_rounding.py::test_a_wrong_gradient_is_found_all_the_same": (),
    "parity/test_shared.py::test_error_on_disk_in_the_ports_nms_is_found": ("at_the_threshold-ddq_detr",),
    "parity/test_shared.py::test_patch_made_by_the_port_at_import_does_not_reach_the_legacy_side": (),
    "parity/test_shared.py::test_what_both_sides_execute_is_told": (),
    "parity/test_stopped.py::test_module_that_makes_nan_in_a_step_of_a_training_is_named": (
        "nan_in_loss-bbox_head.loss_bbox-",
    ),
    "parity/test_stopped.py::test_module_that_makes_nan_is_named": (
        "how0-nan_in_decoder-decoder.layers.0.cross_attn-`decoder` (the predict phase): ValueError: ",
    ),
    "parity/test_stopped.py::test_module_that_makes_nan_is_named_against_a_golden_file": (),
}


def is_thorough(test: str) -> bool:
    """Tell whether a test, by its node id from the folder ``tests`` on, is left to the longer run."""
    function, bracket, case = test.partition("[")
    return function in THOROUGH and (not bracket or case[:-1] not in THOROUGH[function])
