"""The claims of S3: scaling inputs, where to put the norm, why it works, convolutions."""

from experiments.claims.claim import Claim, tests

BATCH = "sources/test_batch"
SCALING = "sources/test_scaling"
TRAINING = "sources/test_training"
MODELS = "experiments/test_models"

CLAIMS = (
    Claim(
        44,
        ("S3",),
        "(x − m)/(max − min) scales data to between 0 and 1.",
        tests(SCALING, "row_44_by_the_mean_and_the_range_is_not_from_0_to_1"),
        "For uniform ages it lies between about −.5 and .5.",
        "It gives mean 0 and a range of width 1, and so both signs; 0 to 1 needs x − min.",
    ),
    Claim(
        45,
        ("S3",),
        "(x − m)/s gives mean 0 and standard deviation 1: each point is standard normal.",
        tests(
            SCALING,
            "row_45_by_the_deviation_is_of_mean_0_and_variance_1_but_not_normal",
        )
        + tests(
            BATCH,
            "rows_45_and_47_z_becomes_the_standardised_z_scaled_and_shifted",
        ),
        "Uniform ages keep their kurtosis of 1.8; a normal has 3.",
        "Mean and standard deviation, yes; but the distribution keeps its shape.",
    ),
    Claim(
        46,
        ("S3",),
        "Rented cars of 0 to 30 years and 0 to hundreds of thousands of km: a large range "
        "biases the model and makes gradients explode.",
        tests(
            "sources/test_contours",
            "row_46_a_large_range_outweighs_a_small_one_and_explodes",
        ),
        "The distance's gradient is over 5000 times the age's; condition number over 10⁸, "
        "and below 2 once standardised.",
    ),
    Claim(
        47,
        ("S3",),
        "z = g(w, x) + b and a = f(z); with batch norm z = g(w, x), zᴺ = ((z − m)/s)·γ + "
        "β and a = f(zᴺ).",
        tests(BATCH, "rows_45_and_47_z_becomes_the_standardised_z_scaled_and_shifted"),
        "Equal to the three steps, composed.",
    ),
    Claim(
        48,
        ("S3", "S4"),
        "A bias before batch norm cancels.",
        tests(BATCH, "row_48_a_bias_before_batch_norm_cancels"),
        "The output is the same and ∂L/∂b = 0; in evaluation too, once the running "
        "statistics have seen it.",
    ),
    Claim(
        49,
        ("S3",),
        "The output has mean β and standard deviation γ.",
        tests(BATCH, "rows_31_and_49_the_output_has_mean_beta_and_deviation_gamma"),
        "Up to ε; a negative γ gives the standard deviation |γ|.",
    ),
    Claim(
        50,
        ("S3",),
        "A fully connected network: Dense 16 on (1, 5), BN, Dense 32, BN, Dense 2.",
        tests(
            MODELS,
            "rows_50_55_and_64_the_parameters_of_linen",
            "rows_50_55_and_64_the_parameters_of_nnx",
            "rows_50_and_55_normalise_after_relu_with_the_defaults_of_keras",
        ),
        "898 parameters, 96 of them statistics; output (B, 1, 2).",
        "It normalises after relu, contrary to the text around it.",
    ),
    Claim(
        51,
        ("S3",),
        "It works because inputs are normalised inside the network, too; it allows higher "
        "learning rates.",
        tests(TRAINING, "row_51_larger_weights_take_smaller_steps_behind_batch_norm"),
        "Weights ten times larger give the same output and a tenth of the gradient.",
        mechanism=True,
    ),
    Claim(
        52,
        ("S3",),
        "Covariate shift is cars first and motorcycles then; batch norm reduces it inside "
        "the network.",
        tests(
            TRAINING,
            "row_52_what_was_learnt_of_cars_fails_on_motorcycles_whose_moments_differ",
        ),
        "A line learnt on cars is off by less than 1 on them, and by over 15 on "
        "motorcycles; normalised, both have mean 0 and standard deviation 1.",
        mechanism=True,
    ),
    Claim(
        53,
        ("S3",),
        "The noise of batches regularises, but weakly: pair it with dropout.",
        tests(TRAINING, "row_53_the_noise_of_a_batch_is_small_and_falls_with_its_size"),
        "At 64 samples the noise is below a quarter of the outputs' standard deviation, "
        "and falls as 1/√m.",
        mechanism=True,
    ),
    Claim(
        54,
        ("S3",),
        "In convolutions each feature map has one mean and one standard deviation.",
        tests(
            "sources/test_axes",
            "row_54_convolutional_batch_norm_has_one_pair_a_feature_map",
        ),
        "Over N·H·W values; C pairs.",
    ),
    Claim(
        55,
        ("S3",),
        "A convolutional network on 28×28×3: Conv 32, BN, Conv 32, BN, pooling, Dense 2.",
        tests(
            MODELS,
            "rows_50_55_and_64_the_parameters_of_linen",
            "rows_50_55_and_64_the_parameters_of_nnx",
            "row_55_the_feature_maps_have_26_24_and_12_positions_a_side",
        ),
        "10,466 parameters, 128 of them statistics; sides of 26, 24 and 12.",
        "The program lacks a comma and a Flatten: as written it classifies each of 12×12 "
        "positions; flattened it has 19,618 parameters.",
    ),
)
