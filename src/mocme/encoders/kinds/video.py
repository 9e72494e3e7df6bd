"""Encode videos as vectors: the mean of some frames, encoded as images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from mocme.encoders.base import EncodingReport
from mocme.encoders.image_backbones import BATCH, ImageEngine
from mocme.encoders.inputs import find_file
from mocme.encoders.neural import Identity, in_chunks
from mocme.encoders.pretrained import extra
from mocme.encoders.store import RawItem, group_means
from mocme.encoders.video_io import ENDINGS, MAX_BYTES, read_frames
from mocme.encoders.visual import VisualEncoder


@dataclass(frozen=True, kw_only=True)
class VideoEncoder(VisualEncoder):
    """Videos as the mean of evenly spaced frames, encoded by an image network.

    Files of at most 500 MB: MP4, MOV, WebM, Matroska, AVI, MPEG and others. Several videos of an
    entity are averaged.

    Args:
        frames: number of frames of a video: it is divided into as many spans of equal length, and
            the frame in the middle of each is used.
    """

    endings = ENDINGS
    several = "entities with several videos, averaged"

    frames: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.frames <= 256:
            raise ValueError("frames must be at least 1 and at most 256")

    def content(self, item: RawItem) -> Path:
        return find_file(item, MAX_BYTES)

    def engine(self, device: torch.device, allow_download: bool) -> VideoEngine:
        with extra("av", "video"):
            import av  # noqa: F401
        return VideoEngine(self.image_engine(device, allow_download), self.frames)


class VideoEngine:
    """A loaded image network that encodes the frames of videos."""

    unit = False

    def __init__(self, images: ImageEngine, frames: int) -> None:
        self.images, self.frames = images, frames
        self.width = images.width
        # Videos whose frames fill a batch of images.
        self.videos_per_batch = max(1, BATCH // frames)
        self.window = 2 * self.videos_per_batch
        self.identity: Identity = {
            **images.identity,
            "frames": f"{frames}, evenly spaced; their mean",
        }

    def prepare(self, content: Path, report: EncodingReport) -> UInt8[np.ndarray, "n side side 3"]:
        """Frames in the network's size."""
        return np.stack(read_frames(content, self.frames, self.images.shape, report))

    def batches(
        self, prepared: Sequence[UInt8[np.ndarray, "_ side side 3"]]
    ) -> Iterator[list[int]]:
        """Videos in their order."""
        return in_chunks(len(prepared), self.videos_per_batch)

    def encode(
        self, batch: Sequence[UInt8[np.ndarray, "_ side side 3"]]
    ) -> Float[np.ndarray, "n F"]:
        """The mean of each video's frames."""
        frames = [frame for video in batch for frame in video]
        vectors = np.concatenate(
            [self.images.encode(frames[n : n + BATCH]) for n in range(0, len(frames), BATCH)]
        )
        return group_means(vectors, [len(video) for video in batch])
