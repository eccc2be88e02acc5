"""May this model ship? Measures what the limits ask for, and judges it with statistics."""
