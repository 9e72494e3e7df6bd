"""Sources of pairs of entities."""

from mocme.data.features.kinds.mentions import Mentions as Mentions
from mocme.data.features.kinds.similar import Similar as Similar
