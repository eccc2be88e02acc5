"""Pipelines by hand: run one, explain a model, find the pass that hurts."""
