"""A run folder: its files, its model as an instrument, and the axes of its latent space."""
