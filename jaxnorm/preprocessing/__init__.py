"""Statistics of a data set, and functions that scale inputs by them."""
