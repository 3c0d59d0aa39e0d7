"""What a data scientist would do instead: refit simple models every night, or train an LSTM without a gate.

Shape suffixes: N windows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.continual.campaign import Campaign, Known
from benchmarks.continual.method import Cost
from benchmarks.labelled import Ints
from trainer.errors import NotEnoughDataError, TrainingDivergedError
from trainer.learn.config import ArchitectureConfig, ModelSettings
from trainer.learn.engine.loader import WindowLoader
from trainer.learn.lstm_trainer import LSTMTrainer
from trainer.learn.model.network import SteelDefectLSTM, build_model
from trainer.learn.scores.baselines import Baseline, fit_baselines
from trainer.learn.scores.evaluate import Probabilities, predict

VALIDATION_SHARE = 0.2


class BaselineFits:
    """Both baselines on everything that is labelled, fitted by one call for each chunk."""

    def __init__(self, campaign: Campaign, seed: int) -> None:
        self.campaign = campaign
        self.cost = Cost()
        self._seed = seed
        self._at_ms = -1
        self._models: dict[str, Baseline] = {}

    def models(self, known: Known) -> dict[str, Baseline]:
        """Both, or those from before while only one class is labelled."""
        if known.at_ms != self._at_ms:
            self._at_ms = known.at_ms
            arrays = self.campaign.x_NTF[known.index_N], self.campaign.mask_NT[known.index_N], known.y_N
            try:
                with self.cost.clocked():
                    self._models = fit_baselines(*arrays, seed=self._seed)
            except NotEnoughDataError:
                return self._models
            self.cost.published += 1
        return self._models


class Refitted:
    """One of the baselines, refitted on everything that is labelled.

    Args:
        name: As `fit_baselines` calls it.
        fits: May be shared: its cost is that of both baselines.
    """

    def __init__(self, name: str, fits: BaselineFits) -> None:
        self._name, self._fits = name, fits
        self._model: Baseline | None = None

    @property
    def cost(self) -> Cost:
        """Of both baselines."""
        return self._fits.cost

    def update(self, known: Known) -> str:
        """Fits."""
        self._model = self._fits.models(known).get(self._name)
        return "fitted" if self._model else "waits for both classes"

    def score(self, index_N: Ints) -> Probabilities | None:
        """By the newest fit."""
        campaign = self._fits.campaign
        if self._model is None:
            return None
        return self._model.predict(campaign.x_NTF[index_N], campaign.mask_NT[index_N])


class TrainedLSTM:
    """An LSTM without a gate: refitted on everything, or fine-tuned on what is new.

    The newest fifth of the groups validates, or as many more as it takes for both classes. Windows that cannot be
    trained on, such as those of one class, wait for the next chunk.

    Args:
        architecture: The rest of the configuration is the default.
        carries_on: Whether it keeps its weights and sees only what was labelled since.
    """

    def __init__(
        self, campaign: Campaign, architecture: ArchitectureConfig, seed: int, *, carries_on: bool
    ) -> None:
        self._campaign, self._carries_on = campaign, carries_on
        training = ModelSettings().training.model_copy(update={"seed": seed, "num_workers": 1})
        self._settings = ModelSettings(architecture=architecture, training=training)
        self._model: SteelDefectLSTM | None = None
        self._seen: frozenset[int] = frozenset()
        self.cost = Cost()

    def update(self, known: Known) -> str:
        """Trains."""
        fresh_N = ~np.isin(known.index_N, list(self._seen)) if self._carries_on else slice(None)
        index_N, y_N = known.index_N[fresh_N], known.y_N[fresh_N]
        try:
            parts = in_time(self._campaign, index_N, y_N)
            with self.cost.clocked():
                model = self._trained(*parts, known)
        except (NotEnoughDataError, TrainingDivergedError) as exc:
            return f"keeps its model: {exc}"
        self._model, self._seen = model, frozenset(known.index_N.tolist())
        self.cost.published += 1
        return f"trained on {len(parts[0])} + {len(parts[1])} windows"

    def score(self, index_N: Ints) -> Probabilities | None:
        """By the newest weights."""
        if self._model is None:
            return None
        return predict(self._model, self._campaign.x_NTF[index_N], self._campaign.mask_NT[index_N])

    def _trained(self, train_N: Ints, validation_N: Ints, known: Known) -> SteelDefectLSTM:
        campaign, settings = self._campaign, self._settings
        model = build_model(settings.architecture, campaign.x_NTF.shape[2], settings.training.seed)
        if self._carries_on and self._model is not None:
            model.load_state_dict(self._model.state_dict())
        y_N = np.zeros(len(campaign), dtype=np.bool_)
        y_N[known.index_N] = known.y_N
        train, validation = (
            WindowLoader(
                campaign.x_NTF,
                campaign.mask_NT,
                y_N,
                index_N=part_N,
                batch_size=settings.training.batch_size,
                shuffle=part_N is train_N,
                seed=settings.training.seed,
            )
            for part_N in (train_N, validation_N)
        )
        LSTMTrainer(model, settings).train(train, validation, progress=False)
        return model


def in_time(campaign: Campaign, index_N: Ints, y_N: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Splits windows by time, whole groups, into a training and a validation part with both classes each.

    Raises:
        NotEnoughDataError: That cannot be done.
    """
    groups = [campaign.groups[n] for n in index_N]
    # A campaign holds its groups together: each begins where its name is new.
    begins = [n for n in range(1, len(groups)) if groups[n] != groups[n - 1]]
    newest = [n for n in begins if n >= (1 - VALIDATION_SHARE) * len(groups)]
    for cut in [*newest[:1], *(n for n in reversed(begins) if n not in newest)]:
        if all(0 < part.sum() < len(part) for part in (y_N[:cut], y_N[cut:])):
            return index_N[:cut], index_N[cut:]
    raise NotEnoughDataError(f"{len(groups)} windows have no training and validation part with both classes")
