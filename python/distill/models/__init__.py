"""Models: the VAE, its start from a PCA, its loss, its R², and its files."""

from distill.models.losses import vae_loss
from distill.models.pca import fit_pca
from distill.models.r2 import ReconstructionR2
from distill.models.store import load_model, save_model
from distill.models.vae import ConvVAE

__all__ = ["ConvVAE", "ReconstructionR2", "fit_pca", "load_model", "save_model", "vae_loss"]
