"""The built-in pipelines, YAML files."""
