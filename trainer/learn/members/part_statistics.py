"""Window statistics of the parts of a split, each computed once: members and baselines see the same."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from trainer.learn.members.labelled import LabelledPart
from trainer.learn.members.statistics import WindowStatistics


class PartStatistics:
    """Computes and remembers.

    Attributes:
        statistics: Which ones.
    """

    def __init__(self, statistics: WindowStatistics) -> None:
        self.statistics = statistics
        self._known: list[tuple[LabelledPart, npt.NDArray[np.float64]]] = []

    @classmethod
    def chosen(cls, train: LabelledPart) -> Self:
        """The statistics that a training part asks for.

        Raises:
            ModelInputError: Shapes do not fit.
        """
        return cls(WindowStatistics.chosen(train.x_NTF, train.mask_NT, train.index_N))

    def __call__(self, part: LabelledPart) -> npt.NDArray[np.float64]:
        """Returns stats_NS of a part, float64, NaN where a window says nothing."""
        for known, stats_NS in self._known:
            if known is part:
                return stats_NS
        stats_NS = self.statistics(part.x_NTF, part.mask_NT, part.index_N)
        self._known.append((part, stats_NS))
        return stats_NS
