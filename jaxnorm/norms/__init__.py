"""The norms: one pure function a file, each a choice of axes over the common core."""
