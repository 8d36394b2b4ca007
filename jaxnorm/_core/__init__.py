"""Arithmetic: arrays in, arrays out; nothing here knows of a framework or a state."""
