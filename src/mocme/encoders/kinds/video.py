"""Videos to vectors: some of their frames as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from mocme.encoders.base import EncodingReport
from mocme.encoders.image_backbones import BATCH, ImageEngine
from mocme.encoders.inputs import find_file
from mocme.encoders.kinds import image
from mocme.encoders.neural import Identity, NeuralEncoder, in_chunks
from mocme.encoders.pretrained import extra
from mocme.encoders.store import RawItem, group_means
from mocme.encoders.video_io import BYTES, ENDINGS, read_frames
from mocme.encoders.vision import Fit, Pooling


class VideoEncoder(NeuralEncoder):
    """Videos by a network for pictures: the mean of frames that are evenly spaced in time.

    Files of at most 500 MB: MP4, MOV, WebM, Matroska, AVI, MPEG and others. Several videos of an
    entity count as their mean.

    Args:
        model: as for pictures.
        fit: as for pictures.
        pooling: as for pictures.
        frames: of a video; the frame that is seen in the middle of each of as many equal parts.
    """

    column = "path"
    endings = ENDINGS
    several = "entities with several videos, averaged"

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        model: str = image.DEFAULT,
        fit: Fit = "own",
        pooling: Pooling = "own",
        frames: int = 8,
    ) -> None:
        super().__init__(paths=paths, entity=entity, columns=columns, delimiter=delimiter)
        image.check(model, pooling)
        if not 1 <= frames <= 256:
            raise ValueError("frames must be at least 1 and at most 256")
        self.model, self.fit, self.pooling, self.frames = model, fit, pooling, frames

    def content(self, item: RawItem) -> Path:
        return find_file(item, BYTES)

    def engine(self, device: torch.device, allow_download: bool) -> VideoEngine:
        """The network of these settings.

        Raises:
            ValueError: a library is missing, or the model cannot be loaded; with the remedy.
        """
        with extra("av", "video"):
            import av  # noqa: F401
        pictures = image.engine_of(self.model, self.fit, self.pooling, 0, device, allow_download)
        return VideoEngine(pictures, self.frames)


class VideoEngine:
    """A network for pictures that is loaded, asked about the frames of videos."""

    unit = False

    def __init__(self, pictures: ImageEngine, frames: int) -> None:
        self.pictures, self.frames = pictures, frames
        self.width = pictures.width
        self.together = max(1, BATCH // frames)
        self.window = 2 * self.together
        self.identity: Identity = {
            **pictures.identity,
            "frames": f"{frames}, evenly spaced; their mean",
        }

    def prepare(self, content: Path, outcome: EncodingReport) -> UInt8[np.ndarray, "n side side 3"]:
        """Frames of the network's size."""
        return np.stack(read_frames(content, self.frames, self.pictures.shape, outcome))

    def batches(self, ready: Sequence[UInt8[np.ndarray, "n side side 3"]]) -> Iterator[list[int]]:
        """Videos in their order, about as many as fill a batch of pictures."""
        return in_chunks(len(ready), self.together)

    def encode(
        self, batch: Sequence[UInt8[np.ndarray, "_ side side 3"]]
    ) -> Float[np.ndarray, "n F"]:
        """The vectors of some videos."""
        flat = [frame for video in batch for frame in video]
        vectors = np.concatenate(
            [self.pictures.encode(flat[n : n + BATCH]) for n in range(0, len(flat), BATCH)]
        )
        return group_means(vectors, [len(video) for video in batch])
