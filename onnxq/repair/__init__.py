"""Winning accuracy back before an op is given up to float: corrected biases, scales that move into weights."""
