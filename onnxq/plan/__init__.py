"""Decides which use of which tensor gets which encoding, and why. Edits nothing."""
