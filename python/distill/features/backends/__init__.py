"""What computes the feature beside the reference: a module for each kernel."""
