"""From the features of a window to its logit.

Shapes: N windows, D features.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm

from trainer.learn.config import Activation, ArchitectureConfig
from trainer.learn.model.dropout import SeededDropout

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes any batch while training.

    One window has no spread: it is normalised by the running statistics, which stay as they are. A frozen one
    keeps its running statistics too and normalises by them, for they are part of what the layer does.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises each feature."""
        if self.training and (len(input) < 2 or not self.weight.requires_grad):
            mean_D, var_D = self.running_mean, self.running_var
            return batch_norm(input, mean_D, var_D, self.weight, self.bias, training=False, eps=self.eps)
        return super().forward(input)


def build_head(num_features: int, config: ArchitectureConfig) -> nn.Sequential:
    """Builds the head: features normalised, then hidden layers, then the logit.

    Args:
        num_features: D.
        config: Of which the head's keys and dropout count.
    """
    layers: list[nn.Module] = _norm(num_features, config)
    for dim in config.head_hidden_dims:
        layers += [SeededDropout(config.dropout), nn.Linear(num_features, dim), *_norm(dim, config)]
        layers.append(ACTIVATIONS[config.head_activation]())
        num_features = dim
    return nn.Sequential(*layers, SeededDropout(config.dropout), nn.Linear(num_features, 1))


def _norm(num_features: int, config: ArchitectureConfig) -> list[nn.Module]:
    if config.head_norm == "none":
        return []
    return [BatchNorm(num_features) if config.head_norm == "batch" else nn.LayerNorm(num_features)]
