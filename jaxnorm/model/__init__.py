"""Analyses a model by tracing it: which norms and layers it calls, and on which inputs."""
