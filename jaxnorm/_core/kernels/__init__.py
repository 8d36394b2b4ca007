"""Kernels for what XLA reads more often than it need: the backward pass of rows.

* `choosing`: whether a kernel may be used, and fits;
* `rows`: a norm of rows whose pullback is a kernel, and what else of it is differentiated;
* `tpu`, `gpu`: the kernels themselves, in Pallas, which is imported where they are traced;
* `row`: what both compute of a row.

A kernel keeps XLA from fusing the norm with its neighbours. So there is none for the
forward pass: on a GPU XLA makes one kernel of it, and on a TPU a block of a network in
bfloat16 takes more passes with one than without.
"""
