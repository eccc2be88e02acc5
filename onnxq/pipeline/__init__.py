"""What a pass is, pipeline files, and the manager that runs them."""
