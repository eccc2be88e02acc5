"""Targets as data, and the CPU they may be chosen by."""
