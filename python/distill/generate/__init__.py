"""Sound from a trained run: generated sounds, and reconstructions of existing ones."""
