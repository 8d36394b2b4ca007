"""What is learnt by tracing a model: which norms and layers it calls, and on what."""
