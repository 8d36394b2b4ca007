"""The claims of S1 beyond S0: depth, internal covariate shift, saturation."""

from experiments.claims.claim import Claim, tests

ACTIVATIONS = "sources/test_activations"

CLAIMS = (
    Claim(22, ("S1",), "The deeper a network, the harder it is to train."),
    Claim(
        23,
        ("S1",),
        "Sigmoids make gradients vanish; relu, dropout, skip connections and batch norm "
        "are remedies.",
        tests(
            ACTIVATIONS,
            "row_23_gradients_vanish_through_sigmoids_and_not_through_relu_or_skips",
        ),
        "After 20 random layers, sigmoids leave less than 10⁻¹² of a gradient; relu and "
        "skips keep its size within a factor of 20.",
        mechanism=True,
    ),
    Claim(
        24,
        ("S1",),
        "While it trains, a layer's inputs are not identically distributed: internal "
        "covariate shift makes deep networks hard to train.",
    ),
    Claim(25, ("S1",), "The shift drives inputs to the ends of the sigmoid."),
    Claim(
        26,
        ("S1",),
        "Batch norm keeps the distribution of each layer's inputs the same.",
        tests(
            "sources/test_batch",
            "row_26_the_inputs_of_a_layer_stay_while_the_layer_before_changes",
        ),
        "Mean 0 and variance 1, with weights before it from .01 to 100.",
    ),
    Claim(
        27,
        ("S1",),
        "Standardising is also called 0–1 standardisation; whitening includes min–max "
        "scaling.",
        tests("sources/test_scaling", "row_27_zero_one_standardisation_and_min_max"),
        "Both scalers are exact.",
        "“0–1” means mean 0 and variance 1, not the range; min–max scaling gives the "
        "range, and whitens nothing.",
    ),
    Claim(
        28,
        ("S1",),
        "Sigmoids have sensitive and saturated zones; near the ends gradients explode or "
        "vanish.",
        tests(
            ACTIVATIONS,
            "row_28_near_the_ends_a_sigmoids_gradient_vanishes_and_never_explodes",
        ),
        "σ′ is at most ¼, and below .00005 for |x| > 10.",
        "There they vanish; since σ′ ≤ ¼, none explode.",
    ),
    Claim(
        29,
        ("S1",),
        "Batch norm stands after the activation of the hidden layer.",
        tests(
            "experiments/test_models",
            "rows_50_and_55_normalise_after_relu_with_the_defaults_of_keras",
        ),
        "The programs of S3 normalise after relu; its text, S4 and the paper (1502.03167) "
        "before.",
        "The sources contradict each other: both places are in use; the paper normalises "
        "before the activation.",
    ),
    Claim(30, ("S1",), "Batch norm regularises slightly."),
)
