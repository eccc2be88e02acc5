"""YAML to dataclasses, strictly, and the job file on top of that."""
