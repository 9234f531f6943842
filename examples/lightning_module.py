"""An autoencoder of your own as a Lightning module, on the cache of a folder.

pip install pytorch-lightning
python examples/lightning_module.py RECORDINGS [EPOCHS]
"""

import sys

import pytorch_lightning as lightning
import torch
from torch import nn

from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
from distill.training import TrainingConfig, create_complex_data_loaders


class Autoencoder(lightning.LightningModule):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(2, width, 4, stride=2, padding=1), nn.SiLU(), nn.Conv2d(width, 8, 1))
        self.decoder = nn.Sequential(nn.Conv2d(8, width, 1), nn.SiLU(), nn.ConvTranspose2d(width, 2, 4, 2, padding=1))

    def error(self, rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(self.decoder(self.encoder(rows)), rows)

    def training_step(self, rows: torch.Tensor, index: int) -> torch.Tensor:
        return self.error(rows)

    def validation_step(self, rows: torch.Tensor, index: int) -> None:
        self.log("val_error", self.error(rows), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(folder: str, epochs: int = 10) -> float:
    """Return the error of the validation rows after training."""
    cache_dir, _ = preprocess_complex_spectrograms(None, folder, ComplexSpectrogramConfig())
    # Lightning moves the rows, so they are not held on a GPU. It makes the loaders distributed by itself.
    train, val = create_complex_data_loaders(cache_dir, TrainingConfig(device="cpu"))
    trainer = lightning.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    trainer.fit(Autoencoder(), train, val)
    return float(trainer.callback_metrics["val_error"])


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
