"""The claims of S0: the steps of batch norm, its effects, and prediction."""

from experiments.claims.claim import Claim, tests

BATCH = "sources/test_batch"
CONTOURS = "sources/test_contours"
ACTIVATIONS = "sources/test_activations"
TRAINING = "sources/test_training"

CLAIMS = (
    Claim(
        1,
        ("S0",),
        "Whitening the inputs, to mean 0 and variance 1, makes training converge faster.",
        tests(CONTOURS, "row_1_standardised_data_is_not_white_and_converges_faster"),
        "With two inputs of unlike ranges, correlated at about .8, standardising saves "
        "more than 99 % of the descent steps, and whitening needs even fewer.",
        "Standardising is not whitening: it leaves the correlation between features, "
        "which only a whitening transform removes.",
    ),
    Claim(
        2,
        ("S0",),
        "The output of a hidden layer is the next one's input, so normalise every layer.",
        tests(
            ACTIVATIONS,
            "rows_2_35_and_56_standardised_inputs_are_those_of_the_first_layer_only",
        ),
        "Behind standardised inputs, with weights of standard deviation 3 at width 64, the "
        "standard deviation grows more than tenfold per layer; normalised in each layer, "
        "it is 1.",
    ),
    Claim(
        3,
        ("S0", "S1"),
        "Four steps: the batch's mean, its variance (divided by m), x̂ = (x − μ)/√(σ² + "
        "ε), y = γx̂ + β.",
        tests(BATCH, "row_3_the_four_steps")
        + tests("norms/test_gradients", "equal_the_oracle", "equal_finite_differences"),
        "Equal to the formula, and its derivatives to finite differences.",
    ),
    Claim(
        4,
        ("S0",),
        "The first three steps make a standard normal distribution.",
        tests(BATCH, "row_4_only_the_first_two_moments_change"),
        "The skewness does not change.",
        "They make the mean 0 and the variance 1; the shape of the distribution stays.",
    ),
    Claim(
        5,
        ("S0",),
        "Illustrated with a batch of two.",
        tests(BATCH, "row_5_a_batch_of_two_gives_one_and_minus_one"),
        "Two samples become +1 and −1, whatever they were: only their order is left.",
    ),
    Claim(
        6,
        ("S0",),
        "Standardised inputs make the contours of L(w) = ½(xw + b − ŷ)² rounder, and its "
        "optimum quicker to reach.",
        tests(
            CONTOURS, "row_6_standardised_inputs_make_round_contours_and_a_faster_optimum"
        ),
        "For x ~ N(6, 1) the condition number falls from over 1000 to 1.",
    ),
    Claim(
        7,
        ("S0",),
        "Without γ and β, sigmoid and tanh stay where they are linear, and relu zeroes "
        "half.",
        tests(
            BATCH,
            "row_7_without_scale_and_bias_sigmoid_is_nearly_linear_and_relu_zeroes_half",
        ),
        "A straight line fits sigmoid on N(0, 1) with R² = .984; relu gives 0 for a half.",
    ),
    Claim(
        8,
        ("S0", "S1"),
        "γ and β restore what the layer could express; they are the same for every "
        "dimension.",
        tests(BATCH, "row_8_scale_and_bias_can_restore_the_input_one_pair_a_feature"),
        "With γ = √(σ² + ε) and β = μ, y = x.",
        "They do restore it, but each feature has its own γ and β.",
    ),
    Claim(
        9,
        ("S0",),
        "A single sample at prediction has no batch statistics.",
        tests(BATCH, "row_9_one_sample_has_no_statistics"),
        "With its own statistics, a single sample gives β, whatever it is.",
    ),
    Claim(
        10,
        ("S0",),
        "Over all batches, E[x] = E[μ_B] and Var[x] = m/(m − 1)·E[σ²_B].",
        tests(
            "sources/test_statistics",
            "row_10_the_population_estimates_are_unbiased",
            "row_10_of_batches_that_differ_the_paper_leaves_out_the_spread_of_means",
        ),
        "Unbiased over 4000 batches of four. If the batches are not drawn alike, it misses "
        "the spread of their means.",
    ),
    Claim(
        11,
        ("S0",),
        "At prediction: y = γx/√(Var + ε) + (β − γE[x]/√(Var + ε)).",
        tests(
            TRAINING,
            "row_11_in_evaluation_the_norm_is_one_affine_map_which_a_layer_can_take",
        )
        + tests("model/test_folding", "a_norm_behind_a_layer", "a_norm_before_a_layer"),
        "Equal to the norm in evaluation; dense and convolutional layers can absorb it.",
    ),
    Claim(12, ("S0", "S1", "S3"), "Batch norm converges faster."),
    Claim(
        13,
        ("S0", "S1"),
        "Batch norm is more accurate; without it, training oscillates near the optimum.",
    ),
    Claim(
        14,
        ("S0",),
        "For x ~ N(−6, 1), 95 % lie in [−8, −4], where a sigmoid is saturated.",
        tests(ACTIVATIONS, "row_14_inputs_of_mean_minus_6_saturate_a_sigmoid"),
        "P = .9545; the mean slope is .0040, and .2066 once normalised: 52 times.",
    ),
    Claim(
        15,
        ("S0",),
        "In training a sample's output depends on the rest of its batch, which helps it "
        "generalise.",
        tests(BATCH, "row_15_a_sample_depends_on_its_batch_in_training_only"),
        "It does in training, and does not in evaluation.",
        mechanism=True,
    ),
    Claim(16, ("S0",), "So L1, L2 and dropout can be reduced."),
    Claim(
        17,
        ("S0", "S2"),
        "Layer norm normalises one sample over all its features.",
        tests(
            "sources/test_axes", "row_17_layer_norm_takes_one_sample_and_all_its_features"
        ),
        "Equal to the formula; a change of one sample changes that sample only.",
    ),
    Claim(
        18,
        ("S0",),
        "Batch norm and layer norm both curb vanishing and exploding gradients.",
    ),
    Claim(
        19,
        ("S0",),
        "Batch norm suits convolutional networks, and neither sequences nor small batches.",
        tests(TRAINING, "row_39_padding_shifts_the_statistics_unless_it_is_masked"),
        "For sequences, padding is shown to shift the statistics, which a mask fixes; no "
        "sequence network was trained.",
        mechanism=True,
    ),
    Claim(
        20,
        ("S0",),
        "Training uses the statistics of batches, which fluctuate; prediction those of "
        "the training set.",
        tests(
            "sources/test_statistics",
            "rows_20_and_58_the_estimate_is_steadier_than_the_batches",
        ),
        "Means of batches of 16 vary by σ/4, their moving average by less than a fifth of "
        "that.",
    ),
    Claim(
        21,
        ("S0",),
        "Dropout makes outputs smaller in training and is off at prediction; left on, it "
        "gives a distribution.",
        tests(TRAINING, "row_21_dropout_shrinks_the_mean_to_p_unless_it_is_divided_by_p"),
        "Keeping a share p = .6, the mean is .6 x; flax, like other current libraries, "
        "divides by p, so that the mean is x.",
    ),
)
