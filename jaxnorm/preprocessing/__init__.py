"""The statistics of a data set, and inputs scaled by them."""
