"""Results for people and for machines. Prints what it is given and computes nothing."""
