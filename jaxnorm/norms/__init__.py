"""The norms: one pure function per file, each a choice of axes over the common core."""
