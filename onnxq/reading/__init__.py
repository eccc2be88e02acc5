"""A strict reader of YAML into dataclasses; job files and pipelines are read with it."""
