"""What the faults are: the diagnoses that are right for them, and how those that were made are judged.

A fault that is not listed is of no kind that a diagnosis covers: whatever is said of it, but where it is or which
number became which, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from parity.diagnosis.kinds import DiagnosisKind as K

RIGHT, WRONG, NONE = "right", "wrong", "none"

#: Kinds of diagnoses that are right, by the name of the fault.
_EXPECTED: tuple[tuple[tuple[K, ...], str], ...] = (
    ((K.EPS,), "eps_batch_norm eps_group_norm eps_layer_norm eps_of_expansion_norm import_changes_layer_norm"),
    ((K.ACTIVATION,), """activation_backbone activation_feed_forward activation_position branch_without_activation
        import_changes_relu"""),
    ((K.RESIDUAL,), """residual_backbone residual_cross_attention residual_self_attention residual_feed_forward
        position_on_value no_position_on_key"""),
    ((K.GEOMETRY,), """dilation stride_in_first_convolution pool_of_two padding_replicated
        stride_in_first_of_three"""),
    ((K.GROUPS,), "group_count"),
    ((K.BATCH_NORM,), """batch_statistics_in_training batch_statistics_at_inference
        backbone_in_training_mode"""),
    ((K.PRECISION,), """half_precision_convolution bfloat_value quality_of_half_precision
        ratios_of_half_precision encoding_of_half_precision stored_in_half_precision scores_in_half_precision
        scores_of_half_precision squares_rounded"""),
    ((K.PERMUTATION,), """images_bgr images_bgr_in_backbone encoding_x_before_y heads_rolled_in_encoder
        heads_rolled_in_cross_attention shapes_wide_first valid_ratios_swapped decoder_layers_reversed
        queries_rolled_by_last_layer channels_rolled_by_feed_forward box_layers_reversed queries_shuffled_in_logits
        classes_rolled sorted_by_label content_in_token_order encoder_boxes_permuted value_heads_reversed
        key_query_value offsets_y_before_x points_before_levels box_size_before_centre classes_from_one
        labels_embedded_from_one kernel_flipped kernel_for_bgr levels_embedded_backwards trace_queries_permuted
        trace_channels_reversed trace_decision_reversed trace_match_exchanged expansion_in_groups_mixed_up
        box_encoding_x_before_y loss_given_dense_boxes_in_reverse distinct_reversed"""),
    ((K.PERMUTATION, K.TRANSPOSE), "tokens_column_major"),
    ((K.PERMUTATION, K.OTHER_RECORD), "levels_coarse_to_fine"),
    ((K.TRANSPOSE,), """memory_projection_transposed query_map_transposed value_projection_transposed
        output_projection_transposed kernel_transposed trace_gradient_transposed"""),
    ((K.MOVED,), "trace_gradient_shuffled trace_sorted"),
    ((K.SHIFT,), "references_one_late off_by_one_reference level_starts_shifted"),
    ((K.REPEATED,), "valid_ratios_of_first_image memory_of_first_image masks_of_the_first_image"),
    ((K.FACTOR,), """running_mean_moves loss_given_scaled_states box_loss_weight iou_loss_weight
        dense_box_loss_weight memory_changed_in_place init_level_embed_std init_label_embedding_std
        init_decoder_gain init_attention_bias units_if_not_rescaled not_rescaled rescaled_the_wrong_way
        rescaled_height_first scale_of_first_image scale_of_last_image third_image_not_rescaled always_rescaled
        import_changes_sigmoid"""),
    ((K.FACTOR, K.CLAMP), "detections_transposed"),
    ((K.OFFSET,), "trace_state_changed"),
    ((K.OFFSET, K.RELABELLED), "labels_from_one denoising_labels_shifted"),
    ((K.SIGN,), "position_negative weight_negative delta_negative offsets_negative"),
    ((K.INVERTED,), "mask_inverted_in_encoder"),
    ((K.CLAMP,), """detections_not_clamped clamped_to_height_first
        gradient_of_neck_clamped_by_caller gradient_of_norm_clamped_by_layer"""),
    ((K.CLAMP, K.RELABELLED), "background_is_last_class"),
    ((K.WHOLE,), "boxes_of_whole_pixels"),
    ((K.CONSTANT,), """running_var_not_loaded norm_weight_not_loaded class_bias_of_initialisation bias_dropped
        trace_all_zero trace_all_mean groups_see_each_other
        init_refinement_not_zero init_head_left_out init_attention_left_out init_xavier_left_out"""),
    ((K.REPLACED, K.CONSTANT), "dropped_queries_not_masked"),
    ((K.SHAPE,), "always_active"),  # queries that the legacy side has dropped are asked again
    ((K.RELABELLED,), """classes_0_and_1_exchanged classes_1_and_2_exchanged classes_0_and_2_exchanged
        class_0_called_1 class_1_called_2 class_2_called_1"""),
    ((K.DROPOUT,), "dropout_at_inference attention_dropout_at_inference"),
    ((K.FUNCTION,), """sigmoid_twice_on_dense loss_given_scores_for_logits raw_outputs_are_scores
        sigmoid_twice_on_detections"""),
    ((K.OTHER_RECORD,), """levels_reversed_by_neck encoder_without_its_last_layer
        position_of_first_layer images_swapped aux_terms_exchanged trace_calls_rotated trace_two_calls_exchanged
        trace_layers_exchanged trace_slots_exchanged trace_arguments_exchanged trace_rows_and_columns_exchanged
        trace_state_of_other_parameter norms_exchanged layers_exchanged predict_given_masks_of_first_layer
        loss_given_masks_of_first_layer predict_given_later_references loss_given_later_references
        raw_outputs_exchanged encoding_by_shape init_query_map_copied init_encoder_layers_copied
        init_decoder_layers_copied active_masks_one_early"""),
    ((K.TYPE,), """labels_of_32_bits dense_of_32_bits distinct_as_int32 trace_double trace_bfloat
        trace_decision_int32"""),
    ((K.SHAPE,), """fewer_detections score_threshold trace_flattened trace_last_row_cut trace_one_axis_more
        fewer_if_not_rescaled fewer_dense"""),
    ((K.ATTENTION,), "heads_reversed_in_self_attention attention_not_scaled"),
    ((K.DETACH,), "value_detached coarsest_level_detached looked_forward_once aux_branch_without_graph"),
    ((K.GRADIENT,), """gradient_doubled gradient_halved_in_loss gradient_of_a_loss_doubled
        gradient_of_memory_scaled_by_caller gradient_of_backbone_scaled_by_caller
        gradient_of_states_scaled_by_caller gradient_of_layer_scaled_by_decoder
        gradient_of_box_loss_doubled_by_head loss_doubled_by_wrapper backward_twice"""),
    ((K.SIGN, K.GRADIENT), "gradient_reversed"),
    ((K.VALUE,), """betas adam_eps weight_decay one_without_decay backbone_as_fast_as_the_rest
        parameters_in_each_others_group warm_up_in_1000_steps decay_after_first_epoch schedule_stuck
        clipped_to_another_norm amsgrad maximize decay_not_decoupled accumulates_two_steps clipped_by_norm_1
        background_in_normaliser denoising_normaliser"""),
    ((K.NOT_FINITE,), """nan_in_one_box infinite_unused_token trace_nan trace_gradient_nan nan_in_backbone
        infinity_in_backbone nan_in_backbone_of_one_image nan_in_neck one_nan_in_neck nan_in_encoder_norm
        nan_by_root_in_encoder nan_in_encoder_attention_of_one_image infinity_in_encoder nan_in_decoder_attention
        nan_in_decoder_of_one_image one_nan_in_decoder nan_in_decoder_in_training nan_in_label_embedding
        nan_in_class_logits infinity_in_box_branch"""),
    ((K.PLACE,), "one_element one_query_of_one_layer last_bit_of_one_weight last_layer_not_normalised"),
)
#: Of faults of other kinds, what is true as well if it is said of the record that differs first.
_ALSO_TRUE: tuple[tuple[tuple[K, ...], str], ...] = (
    ((K.OTHER_RECORD,), """boxes_of_other_image_selected loss_given_samples_in_reverse predict_given_samples_in_reverse
        third_image_has_queries_of_second proposals_not_masked sizes_of_first_batch masks_of_the_first_image
        reference_points_by_shape
        results_largest_first memory_of_first_image images_swapped off_by_one_branch off_by_one_aux_branch
        swapped_aux_branch"""),
    ((K.SIGN,), "worst_detections"),  # ranks negated scores
    ((K.MOVED,), "window_not_shifted"),
    ((K.FACTOR,), """iou_loss_in_unit_boxes iou_loss_height_first dense_loss_in_unit_boxes dense_sizes_of_first_image
        matched_in_size_of_first_image loss_given_objects_in_units image_scaled_by_place_in_batch
        images_scaled_in_place objects_scaled_in_place detections_in_padded_image"""),
    ((K.EPS,), "crash_in_head_after_encoder crash_in_decoder_after_neck"),
    ((K.FACTOR,), "crash_in_loss_after_decoder"),
    ((K.OFFSET,), """one_query_of_one_layer norm_remembers_last_call query_map_remembers_last_image
        convolution_remembers_last_batch"""),
    ((K.PERMUTATION,), "selection_remembers_last_image draws_used_backwards"),
    ((K.CLAMP,), "anchor_clamped sizes_of_whole_blocks dense_objects_inside_by_a_pixel clipped_by_value"),
    # masks of the first layer let all queries pass
    ((K.CONSTANT,), """one_class_for_encoder class_0_without_objects average_forgotten active_masks_one_early
        predict_given_masks_of_first_layer loss_given_masks_of_first_layer"""),
    ((K.DROPOUT,), "dropout_feed_forward dropout_attention drop_path_rate drop_path_per_token"),
    ((K.DETACH,), "denoising_loss_without_graph position_without_graph level_embed_detached"),
    ((K.SHAPE,), """denoising_groups mask_row_2 mask_row_last small_objects_not_matched
        images_without_objects_left_out"""),  # of the others, queries are asked that legacy has dropped
    ((K.OTHER_RECORD,), "not_rescaled always_rescaled"),  # which is what another way of inference gives
    ((K.RESIDUAL,), "activation_before_sum"),  # what is activated lacks a term
)  # fmt: skip


def _by_fault(*tables: tuple[tuple[tuple[K, ...], str], ...]) -> dict[str, frozenset[K]]:
    found: dict[str, frozenset[K]] = {}
    for kinds, names in (row for table in tables for row in table):
        for name in names.split():
            found[name] = found.get(name, frozenset()) | frozenset(kinds)
    return found


#: Faults of a kind that a diagnosis covers, and what is right for all of them.
COVERED = frozenset(_by_fault(_EXPECTED))
EXPECTED = _by_fault(_EXPECTED, _ALSO_TRUE)
#: What is read off the record, and is true of every difference.
_FACTS = (K.PLACE, K.NOT_FINITE, K.VALUE, K.FROZEN, K.REPLACED)


@dataclass(frozen=True)
class Score:
    """How the diagnoses of one fault under one tolerance are judged.

    Attributes:
        fault: its name.
        tolerance: that it was compared under.
        judged: right, wrong or none.
        covered: it is of a kind that a diagnosis covers.
        said: kind and text of what was said.
    """

    fault: str
    tolerance: str
    judged: str
    covered: bool
    said: tuple[tuple[str, str], ...]


def score(fault: str, tolerance: str, said: Sequence[tuple[str, str]]) -> Score:
    """Judge what was said of a fault: kind and text of each diagnosis."""
    expected = EXPECTED.get(fault, frozenset())
    kinds = [K(kind) for kind, _ in said]
    what = [kind for kind in kinds if kind not in _FACTS]
    if what:
        judged = RIGHT if set(what) <= expected else WRONG
    else:
        judged = RIGHT if expected & set(kinds) else NONE
    return Score(fault, tolerance, judged, fault in COVERED, tuple(said))


def scores(findings: Mapping[str, Mapping[str, Sequence[tuple[str, str]]]]) -> list[Score]:
    """Judge what was said of every fault, by its name and the tolerance."""
    return [
        score(name, tolerance, said)
        for name, by_tolerance in findings.items()
        for tolerance, said in by_tolerance.items()
    ]


def lines(found: Iterable[Score]) -> Iterator[str]:
    """Yield the figures of each tolerance, and every diagnosis that is wrong or missing."""
    found = list(found)
    for tolerance in dict.fromkeys(one.tolerance for one in found):
        ones = [one for one in found if one.tolerance == tolerance]
        covered = [one for one in ones if one.covered]
        right = sum(one.judged == RIGHT for one in covered)
        wrong = [one for one in ones if one.judged == WRONG]
        if not covered and not wrong:
            continue
        share = f" ({right / len(covered):.1%})" if covered else ""
        yield (
            f"diagnoses   {tolerance}: covered {len(covered)} of {len(ones)}, right {right}{share}, "
            f"wrong {len(wrong)}, none {sum(one.judged == NONE for one in covered)}"
        )
        kinds = {kind for one in ones if one.judged == RIGHT for kind, _ in one.said}
        yield f"  kinds that were right: {len(kinds)}"
        for one in wrong:
            yield f"  wrong     {one.fault}: {'; '.join(f'{kind}: {text}' for kind, text in one.said)}"
        missing = [one.fault for one in covered if one.judged == NONE]
        if missing:
            yield f"  none      {', '.join(missing)}"
