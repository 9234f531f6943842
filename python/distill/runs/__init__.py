"""Run folders: their files, the trained model as an instrument, and the axes of its latent space."""
