"""What `Recorder` costs a training loop: plain PyTorch with it and without, on an MLP and on a
network of the size of ResNet-18."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import dlnlib as dl
from benchmarks.measure import clock, compare

__all__ = ["LoopCase", "CASES", "TINY_CASES", "against_bare"]


class Block(nn.Module):
    """Two convolutions with norms, and the residual connection around them."""

    def __init__(self, below: int, width: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(below, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        plain = below == width and stride == 1
        self.skip = (
            nn.Identity()
            if plain
            else nn.Sequential(
                nn.Conv2d(below, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[0](self.first(x)).relu()
        return (self.norms[1](self.second(h)) + self.skip(x)).relu()


def resnet(width: int = 64, classes: int = 10) -> nn.Module:
    """ResNet-18 for images of 32 x 32: 11.2 million parameters at width 64."""
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    sizes = [(1, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 2)]
    blocks = []
    for below, above, stride in sizes:
        blocks += [
            Block(below * width, above * width, stride),
            Block(above * width, above * width, 1),
        ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)]
    return nn.Sequential(*stem, *blocks, *head)


def mlp(width: int = 512, classes: int = 10) -> nn.Module:
    """784 - width - width - classes, ReLU."""
    return nn.Sequential(
        nn.Linear(784, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


@dataclass(frozen=True)
class LoopCase:
    """A model, the shape of a batch, and how many steps of SGD."""

    name: str
    model: Callable[[], nn.Module]
    batch: tuple[int, ...]
    steps: int


CASES = (
    LoopCase("MLP 784-512-512-10, batch 128", mlp, (128, 784), 3000),
    LoopCase("ResNet-18 size, batch 32", resnet, (32, 3, 32, 32), 40),
)
TINY_CASES = (LoopCase("ResNet, width 4", lambda: resnet(4), (2, 3, 8, 8), 2),)


def loop(case: LoopCase, recorded: bool) -> dl.Recorder | None:
    """SGD with momentum on random batches; the recorder with its defaults."""
    torch.manual_seed(0)
    model = case.model()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    x, y = torch.randn(case.batch), torch.randint(10, (case.batch[0],))

    def steps(step):
        for _ in range(case.steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            step()

    if not recorded:
        return steps(lambda: None)
    with dl.Recorder(model) as recorder:
        steps(recorder.step)
    return recorder


def against_bare(case, repeats):
    """Processor time of the whole loop, with the recorder and without."""
    made = []
    rows = compare(
        case.name,
        {"batch": list(case.batch), "steps": case.steps},
        lambda: clock(lambda: made.append(loop(case, True))),
        {"the loop alone": lambda: clock(lambda: loop(case, False))},
        repeats,
    )
    shares = ", ".join(f"{100 * r.spent / r.elapsed:.2f} % in {len(r.records)}" for r in made)
    print(f"{case.name}: share of the time spent on records, {shares} records")
    return rows
