"""Mean and variance of an array: a formula for each platform, and how it is chosen."""
