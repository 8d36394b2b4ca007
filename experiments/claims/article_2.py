"""The claims of S2: batch norm and layer norm compared."""

from experiments.claims.claim import Claim, tests

AXES = "sources/test_axes"

CLAIMS = (
    Claim(
        31,
        ("S2",),
        "h = f(g·(x − μ)/σ + b): the mean becomes b, the variance g².",
        tests(
            "sources/test_batch",
            "rows_31_and_49_the_output_has_mean_beta_and_deviation_gamma",
        ),
        "Before the activation f, up to ε.",
    ),
    Claim(
        32,
        ("S2",),
        "One matrix product after another makes values grow; a norm pulls them back.",
        tests(
            "sources/test_activations",
            "row_32_products_grow_or_shrink_and_a_norm_pulls_them_back",
        ),
        "At width 64, by 8 per layer with weights of standard deviation 1, by .08 with "
        ".01; normalised, not at all.",
        "They grow, or shrink, by the weights' standard deviation times √width; a norm "
        "fixes both.",
    ),
    Claim(
        33,
        ("S2",),
        "Batch norm steadies the batch axis, layer norm the hidden axis.",
        tests(
            AXES,
            "row_33_batch_norm_steadies_the_batch_axis_and_layer_norm_the_hidden_axis",
        ),
        "Mean 0 and variance 1 along its own axis, but not along the other.",
    ),
    Claim(
        34,
        ("S2",),
        "Each layer is like a classifier of the last one's outputs; the shift accumulates "
        "with depth.",
    ),
    Claim(
        35,
        ("S2",),
        "Preprocessing the data fixes only the first layer.",
        tests(
            "sources/test_activations",
            "rows_2_35_and_56_standardised_inputs_are_those_of_the_first_layer_only",
        ),
        "Behind standardised inputs, with weights of standard deviation 3 at width 64, the "
        "standard deviation grows more than tenfold per layer.",
    ),
    Claim(
        36,
        ("S2",),
        "Means are over N·H·W values in batch norm, C·H·W in layer norm, H·W in instance "
        "norm, (C/g)·H·W in group norm.",
        tests(
            AXES,
            "row_36_over_how_many_elements_the_means_go",
            "row_36_group_norm_of_one_group_is_layer_norm_of_the_sample",
            "row_36_group_norm_of_as_many_groups_as_channels_is_instance_norm",
            "row_36_batch_norm_of_one_sample_is_instance_norm",
        ),
        "This many inputs reach an output; GN(1) = LN, GN(C) = IN, BN of one sample = IN.",
    ),
    Claim(
        37,
        ("S2",),
        "Positions of a text differ in distribution; layer norm does not depend on the "
        "batch.",
        tests(AXES, "row_37_layer_norm_does_not_depend_on_the_batch"),
        "Bit for bit the same in another batch; padding changes nothing.",
    ),
    Claim(
        38,
        ("S2",),
        "Layer norm is one transform for the whole layer, which hurts where features are "
        "unlike.",
        tests(AXES, "row_38_layer_norm_drowns_a_feature_beside_one_of_another_kind"),
        "A colour is lost beside sizes a thousand times larger.",
        "It does hurt, but each unit has its own gain and bias, as in batch norm.",
    ),
    Claim(
        39,
        ("S2",),
        "Normalising the zeros of padding means nothing.",
        tests(
            "sources/test_training",
            "row_39_padding_shifts_the_statistics_unless_it_is_masked",
        ),
        "If half is padding, the mean is halved; masked, outputs and statistics are the "
        "same as without padding.",
    ),
    Claim(
        40,
        ("S2",),
        "Batch norm keeps the order of samples and loses that of features; layer norm the "
        "reverse.",
        tests(
            AXES,
            "row_40_batch_norm_keeps_the_order_of_samples_and_layer_norm_of_features",
            "row_40_batch_norm_loses_the_order_of_features_and_layer_norm_of_samples",
        ),
        "Shown with γ > 0 and by counterexamples, before layer norm's gain and bias, which "
        "differ per unit; batch norm reverses the order of samples where γ < 0.",
    ),
    Claim(
        41,
        ("S2",),
        "For [[4, 3, 2], [3, 3, 2], [2, 2, 2]]: columns [x1, 0, −x1], [a, a, b], [0, 0, 0] "
        "by batch norm, rows by layer norm.",
        tests(AXES, "row_41_the_three_by_three_example"),
        "x1 = 1.224745, a = .707107, b = −1.414214; a constant feature gives 0, never NaN.",
    ),
    Claim(
        42,
        ("S2",),
        "For two samples with two features at three positions, equal inputs of a feature "
        "are normalised equally.",
        tests(AXES, "row_42_equal_inputs_of_one_feature_normalise_equally"),
        "μ = 3.666667 and 2, σ² = 5.222222 and 1.666667; both 1s become −1.16692.",
    ),
    Claim(
        43,
        ("S2",),
        "On the same data layer norm goes by sample, and in language by row of each "
        "sample.",
        tests(AXES, "row_43_layer_norm_of_the_sample_and_of_its_rows"),
        "First row by sample −.866025, .433013, 1.732051; by row −1.224745, 0, 1.224745.",
    ),
)
