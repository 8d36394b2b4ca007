"""Kernels for the backward pass of rows, in which XLA reads memory more often than needed.

* `choosing`: whether a kernel may be used, and fits;
* `rows`: a norm of rows whose pullback is a kernel, and its other derivatives;
* `tpu`, `gpu`: the kernels themselves, in Pallas, which is imported when they are traced;
* `row`: the computation for a row, shared by both.

A kernel keeps XLA from fusing the norm with its neighbours, so the forward pass has none:
on a GPU, XLA compiles it to one kernel, and on a TPU, a block of a network in bfloat16
takes more passes with a kernel than without.
"""
