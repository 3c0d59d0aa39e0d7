"""What a cycle fits beside its network: on the training part to be judged, on all windows to be published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import structlog

from trainer.data.dataset import Dataset
from trainer.data.split import IntArray, Split
from trainer.learn.config import ModelSettings
from trainer.learn.ensemble.defect_model import DefectModel
from trainer.learn.ensemble.fitting import Fitted, fit_ensemble
from trainer.learn.members.labelled import LabelledPart
from trainer.learn.members.part_statistics import PartStatistics
from trainer.learn.model import SteelDefectLSTM
from trainer.learn.scores.evaluate import Probabilities, rank_quality

log = structlog.get_logger()

# By how much what is published may rank the gate windows worse than what was judged. It was fitted to them as well,
# so whatever is worse by more is another model.
MAX_LOSS_BY_REFIT = 0.02

MS_A_DAY = 86_400_000


class Members:
    """Fits models to the parts of a data set.

    Attributes:
        train: The parts of the split, as are `validation` and `gate`.
        statistics: What members and baselines see of them.
    """

    def __init__(self, dataset: Dataset, split: Split, settings: ModelSettings) -> None:
        self._dataset, self._settings = dataset, settings
        whole = LabelledPart(dataset.x_NTF, dataset.mask_NT, dataset.y_N, order_N=split.rank_N)
        self.train, self.validation, self.gate = (
            whole.at(index_N) for index_N in (split.train_N, split.validation_N, split.gate_N)
        )
        self.statistics = PartStatistics.chosen(self.train)

    def fit(self, network: SteelDefectLSTM) -> Fitted:
        """The model to be judged: fitted without the gate part."""
        return self._fit(network, (self.train, self.validation))

    def refit(self, judged: DefectModel) -> Fitted | None:
        """The model to be published: the newest windows are learned; None if that makes another model of it."""
        parts = (self.train, self.validation, self.gate)
        refit = self._fit(judged.network, parts, judged.combination.weights["lstm"])
        before, after = (
            rank_quality(self.gate.labels, self.probabilities(model, self.gate))
            for model in (judged, refit.model)
        )
        if after >= before - MAX_LOSS_BY_REFIT:
            return refit
        log.warning(
            "published as it was judged", why="refit it ranks the gate worse", before=before, after=after
        )
        return None

    def probabilities(self, model: DefectModel, part: LabelledPart) -> Probabilities:
        """Scores of the windows of a part."""
        threads = self._settings.training.num_threads
        return model.probabilities(part.x_NTF, part.mask_NT, index_N=part.index_N, num_threads=threads)

    def _fit(
        self, network: SteelDefectLSTM, parts: Sequence[LabelledPart], lstm_weight: float | None = None
    ) -> Fitted:
        places = np.concatenate([part.index_N for part in parts if part.index_N is not None])
        return fit_ensemble(
            network,
            parts,
            settings=self._settings,
            statistics=self.statistics,
            weight_N=recency_weights(self._dataset, places, self._settings),
            lstm_weight=lstm_weight,
        )


def recency_weights(
    dataset: Dataset, index_N: IntArray, settings: ModelSettings
) -> npt.NDArray[np.float64] | None:
    """What some windows count: half for each half-life before the newest, 1 on average; None: all the same."""
    half_life_days = settings.loss.recency_half_life_days
    if half_life_days is None:
        return None
    end_N = dataset.end_N[index_N]
    age_days_N = (end_N.max() - end_N) * dataset.manifest.data.period_ms / MS_A_DAY
    weight_N = np.exp2(-age_days_N / half_life_days)
    return np.asarray(weight_N / weight_N.mean())
