"""Shared by the studies: data, training, resumable runs, results, figures and claims."""
