"""The trainer's branches of the error tree; `streamer.errors` has the root and the shared ones.

CastingError
|-- NotEnoughDataError       wait for more casts; the message says what is missing
|-- ModelInputError          shapes, types or values do not fit the model: mend the caller
|-- TrainingSetupError       this configuration cannot train here: mend the configuration
|-- TrainingDivergedError    loss or gradient is not finite: mend the data or the learning rate
|-- CheckpointError          a checkpoint is torn, or of another architecture
|-- ArtifactError            a model file is not what it says it is: never load it
`-- RegistryError            the registry on disk is locked, unwritable or contradicts itself
"""

from __future__ import annotations

from streamer.errors import CastingError


class NotEnoughDataError(CastingError):
    """A data set cannot be split or scored yet; the message says what is missing and how much of it."""


class DatasetChangedError(CastingError):
    """A frozen data set cannot be read again as it was."""


class ModelInputError(CastingError):
    """Arrays or labels do not fit the model; the message gives what was expected and what came."""


class TrainingSetupError(CastingError):
    """A training cannot begin as it is configured on this machine; the message names the key and the mend."""


class TrainingDivergedError(CastingError):
    """Loss or gradient became NaN or infinite; the weights before that step are untouched."""


class CheckpointError(CastingError):
    """A checkpoint cannot be used: torn, missing, or of another architecture (differing fields are named)."""


class ArtifactError(CastingError):
    """A model file is malformed, of an unknown format version, or fails its digest."""


class RegistryError(CastingError):
    """The registry on disk cannot be used: locked by another process, unwritable, or inconsistent."""
