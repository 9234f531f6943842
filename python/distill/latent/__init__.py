"""Analysis of a latent space: its principal axes, and how they relate to what is heard."""
