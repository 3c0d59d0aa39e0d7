"""The trainer's branches of the error tree; `streamer.errors` has the root and the shared ones.

CastingError
|-- NotEnoughDataError       wait for more casts; the message says what is missing
|-- ModelInputError          shapes, types or values do not fit the model: mend the caller
|-- TrainingSetupError       this configuration cannot train here: mend the configuration
|-- TrainingDivergedError    loss or gradient is not finite: mend the data or the learning rate
|-- CheckpointError          a checkpoint is torn, or of another architecture
|-- ArtifactError            a model file is not what it says it is: never load it
|-- DatasetChangedError      a frozen data set is gone: freeze another
|-- RegistryError            the registry on disk contradicts itself: a person decides
|   |-- RegistryLockedError  another trainer writes to it: ask that one
|   `-- RegistryBehindError  the topics know later models than it does: point it to the right folder, or adopt
|-- InputsChangedError       a model of other inputs may not take the place of the champion: a person decides
|-- CycleStoppedError        a stop was asked for in mid-cycle: it goes on at the next start
|-- AttemptFailedError       retriable: one attempt of a cycle failed; it is tried again a few times
`-- UnavailableError         (of the streamer)
    `-- DiskUnavailableError retriable: the disk is full, read-only or gone; nothing is lost
"""

from __future__ import annotations

from streamer.errors import CastingError, RefusedError, UnavailableError


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
    """The registry on disk cannot be used: a file is torn, of a newer version, or contradicts another one."""


class RegistryLockedError(RegistryError):
    """Another trainer on this machine writes to the registry."""


class RegistryBehindError(RegistryError):
    """The topics, or Redis, know later versions of the model than the registry does."""


class InputsChangedError(RefusedError):
    """Windows have other sensors, units, period or size than the champion's, and nobody has agreed to that."""


class CycleStoppedError(CastingError):
    """A stop was asked for in mid-cycle; the cycle goes on from its checkpoint at the next start."""


class AttemptFailedError(CastingError):
    """One attempt of a cycle failed; its cause says why, and it is tried again."""

    retriable = True


class DiskUnavailableError(UnavailableError):
    """A file or a folder cannot be written or read now: the disk is full, read-only or gone."""
