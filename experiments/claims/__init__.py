"""The claims of five articles on normalisation, and the tests that check them.

The experiments' verdicts are not stored here; they refer to claims by row.
"""

from experiments.claims import article_0, article_1, article_2, article_3, article_4
from experiments.claims.claim import Claim as Claim

ARTICLES = {
    "S0": "“Batch Normalization in neural networks”, a blog post in Chinese",
    "S1": "“A tool that eases vanishing gradients and trains faster”, in Chinese, 2019",
    "S2": "“Batch normalization and layer normalization”, notes in Chinese",
    "S3": "“Batch Normalization in Convolutional Neural Networks”, Baeldung, translated",
    "S4": "“How Batch Normalization converges faster and is more accurate”, with a program",
}

CLAIMS = (
    *article_0.CLAIMS,
    *article_1.CLAIMS,
    *article_2.CLAIMS,
    *article_3.CLAIMS,
    *article_4.CLAIMS,
)
