"""The claims of S4: running statistics, and the program that this project started from."""

from experiments.claims.claim import Claim, tests

STATISTICS, SEED = "sources/test_statistics", "experiments/test_seed_network"

CLAIMS = (
    Claim(
        56,
        ("S4",),
        "Met in the paper on ladder networks (1507.02672): classic networks standardise "
        "their input only, batch norm the input of every layer.",
        tests(
            "sources/test_activations",
            "rows_2_35_and_56_standardised_inputs_are_those_of_the_first_layer_only",
        ),
        "That paper uses batch norm, but batch norm's own paper is 1502.03167.",
    ),
    Claim(
        57,
        ("S4",),
        "s1 = Wx, s2 = s1 standardised, s3 = γs2 + β, then relu; sums run from i = 0 to m.",
        tests(
            "sources/test_batch",
            "row_57_the_flow_s1_s2_s3_relu_sums_from_the_first_sample",
        ),
        "Equal to the flow over m samples.",
        "There are m samples, not m + 1: sums run from i = 1.",
    ),
    Claim(
        58,
        ("S4",),
        "Prediction uses the mean and variance of the whole training set, kept by moving "
        "averages.",
        tests(STATISTICS, "rows_20_and_58_the_estimate_is_steadier_than_the_batches"),
        "A moving average is over 5 times steadier than the means of batches of 16, and "
        "within .2 of the mean.",
    ),
    Claim(
        59,
        ("S4",),
        "The moments of the printed 10×5 array, over its rows and over all.",
        tests(STATISTICS, "row_59_the_moments_of_the_printed_array"),
        "As printed; over all 52.9 and 714.41. Integers are refused, with a fix suggested.",
    ),
    Claim(
        60,
        ("S4",),
        "shadow = decay·shadow + (1 − decay)·value, from the value at the start; the "
        "larger the decay, the steadier.",
        tests(
            STATISTICS,
            "row_60_the_shadow_follows_and_more_steadily_with_a_larger_decay",
        ),
        "Equal to the formula; each step from .9 to .99 to .999 is over 5 times steadier.",
    ),
    Claim(
        61,
        ("S4",),
        "To move faster at first, decay = min(decay, (1 + n)/(10 + n)).",
        tests(STATISTICS, "row_61_the_printed_decays_of_the_warm_up"),
        "n = 0, 1, 10, 100: .1, .181818, .55, .918182; capped at .99 from 890 on.",
    ),
    Claim(
        62,
        ("S4",),
        "A mean over time: mv ← t/(t + 1)·mv + a/(t + 1).",
        tests(STATISTICS, "row_62_the_running_mean_is_the_arithmetic_mean"),
        "It is the arithmetic mean.",
    ),
    Claim(
        63,
        ("S4",),
        "A moving average of decay .9 from 1, of 2, 3 and 4: 1.1, 1.29, 1.561.",
        tests(STATISTICS, "row_63_the_printed_moving_averages"),
        "As printed.",
    ),
    Claim(
        64,
        ("S4",),
        "The program: 784–1000–500–250–250–250–10, batch norm in every layer, the last "
        "too, and no biases.",
        tests(SEED, "row_64_the_network_has_1541020_trainable_parameters")
        + tests("experiments/test_models", "rows_50_55_and_64_the_parameters_of_linen"),
        "1,541,020 trainable parameters.",
    ),
    Claim(
        65,
        ("S4",),
        "W = V/√fan_in inside the graph, V ~ N(0, 1).",
        tests(SEED, "row_65_adam_at_02_moves_the_first_weights_by_0007"),
        "So Adam at .02 on V moves the first layer's weights by .0007.",
    ),
    Claim(
        66,
        ("S4",),
        "Decay .99 from 0 and 1, ε = 10⁻¹⁰, batches of 120, 100 epochs; rate .02, from "
        "epoch 15 falling in a line to 0.",
        tests(
            SEED,
            "row_66_the_learning_rate_of_the_source",
            "row_66_the_batches_epochs_average_and_epsilon_of_the_source",
            "row_66_the_schedule_counts_the_steps_of_an_epoch",
        ),
        "Epochs 15, 16, 58, 99, 100: .02, .019765, .009882, .000235, 0.",
    ),
    Claim(
        67,
        ("S4",),
        "It reports test accuracy with `testing`, by running statistics, and “train "
        "accuracy”.",
        tests(
            "sources/test_training",
            "row_67_the_log_of_a_softmax_is_nan_where_the_softmax_is_0",
        ),
        "log(softmax) is NaN where the softmax is 0.",
        "`testing` is never read, so test accuracy uses the test batch's statistics; the "
        "average is not ordered after the assignment, γ is named “beta”, log(softmax) can "
        "be NaN, and the train accuracy is the last batch's.",
    ),
    Claim(68, ("S4",), "Its title: batch norm converges faster and is more accurate."),
)
