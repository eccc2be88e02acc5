"""The job file, on top of the strict reader."""
