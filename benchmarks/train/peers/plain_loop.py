"""The loop of the PyTorch tutorials: a DataLoader, a pass over it, a test after it."""

from __future__ import annotations

import torch
import torch._dynamo  # the first optimizer imports it, a second that others spend before their clock
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.train.job import Clock, Job
from benchmarks.train.peers.plain_model import Data

Loader = DataLoader[tuple[Tensor, ...]]


def train(
    loader: Loader, model: nn.Module, loss_fn: nn.Module, optimizer: torch.optim.Optimizer, job: Job
) -> None:
    model.train()
    for x_NTF, y_N in loader:
        loss = loss_fn(model(x_NTF), y_N)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), job.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()


def test(loader: Loader, model: nn.Module, loss_fn: nn.Module, num_val: int) -> float:
    model.eval()
    test_loss = 0.0
    with torch.no_grad():
        for x_NTF, y_N in loader:
            test_loss += loss_fn(model(x_NTF), y_N).item() * len(y_N)
    return test_loss / num_val


def main() -> None:
    job = Job.from_arguments()
    data = Data(job)
    model = data.model()
    loss_fn = nn.BCEWithLogitsLoss(pos_weight=data.pos_weight)
    clock = Clock()
    train_loader, val_loader = data.loaders()
    optimizer = torch.optim.Adam(model.parameters(), lr=job.learning_rate)
    for _ in range(job.max_epochs):
        train(train_loader, model, loss_fn, optimizer, job)
        val_loss = test(val_loader, model, loss_fn, data.num_val)
    print(clock.report(torch_version=torch.__version__, val_loss=val_loss, auc_E=[]))


if __name__ == "__main__":
    main()
