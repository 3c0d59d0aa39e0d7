"""skorch: its binary classifier with its defaults; it prints nothing, as none of the others does."""

from __future__ import annotations

import torch
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import GradientNormClipping
from skorch.helper import predefined_split

from benchmarks.train.job import Clock, Job
from benchmarks.train.peers.plain_model import Data, PlainLSTM


def main() -> None:
    job = Job.from_arguments()
    data = Data(job)
    net = NeuralNetBinaryClassifier(
        PlainLSTM,
        module__readout=job.readout,
        criterion__pos_weight=data.pos_weight,
        optimizer=torch.optim.Adam,
        lr=job.learning_rate,
        batch_size=job.batch_size,
        max_epochs=job.max_epochs,
        iterator_train__sampler=data.sampler,
        iterator_train__shuffle=data.sampler is None,
        train_split=predefined_split(data.val),
        callbacks=[("clip", GradientNormClipping(gradient_clip_value=job.grad_clip_norm))],
        verbose=0,
    )
    torch.manual_seed(job.seed)
    net.initialize()
    data.load_first_weights(net.module_)
    clock = Clock()
    net.partial_fit(data.train, y=None)
    val_loss = float(net.history[-1, "valid_loss"])
    print(clock.report(torch_version=torch.__version__, val_loss=val_loss, auc_E=[]))


if __name__ == "__main__":
    main()
