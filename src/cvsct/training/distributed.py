"""Training of one model by several processes: `torchrun --nproc_per_node=N -m cvsct.cli train ...`.

Every rank holds all networks and draws the same random numbers. It computes its slice of each
batch; whatever is a mean over the batch is averaged here, so that N ranks learn what one process
learns from the whole batch. A GAN's step backpropagates through networks that are frozen in turn
and run several times a pass, which DistributedDataParallel's hooks are not made for: gradients
are averaged by hand, in one flat bucket an optimizer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from cvsct.core.errors import TrainingError, UsageError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, and which of them this is.

    Args:
        rank: this one's number; rank 0 alone writes files and reports.
        size: how many there are.
        device: what this one computes on.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def share(self, batch: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "m 1 h w"]:
        """Slice of a batch that this rank computes; ranks take their slices in order."""
        return batch.chunk(self.size)[self.rank]

    def gather(self, part: Float[Tensor, "m 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """The whole batch from every rank's slice."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in self]
        with self._collective():
            distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks, all in one message."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._collective():
            distributed.all_reduce(flat)
        flat /= self.size
        _fill(tensors, flat)

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by rank 0's."""
        if self.size == 1:
            return
        for tensor in tensors:
            flat = tensor.reshape(-1).clone()
            with self._collective():
                distributed.broadcast(flat, 0)
            _fill([tensor], flat)

    def value_of_first_rank(self, value: float) -> float:
        """Value of rank 0, on every rank."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        self.broadcast_([shared])
        return float(shared)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))

    @contextlib.contextmanager
    def _collective(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise TrainingError(
                f"rank {self.rank} lost another of the {self.size} ranks ({_first_line(error)}); "
                "that one's own message says why, go on with --resume"
            ) from error


ALONE = Ranks()
"""One process, on the CPU."""


@contextlib.contextmanager
def join_ranks(meet_at: str = "env://") -> Iterator[Ranks]:
    """The ranks that torchrun has started, until the block ends; one where it has not.

    Args:
        meet_at: where the ranks find each other; torchrun puts it into the environment.

    Raises:
        UsageError: if the machine has fewer GPUs than ranks.
        TrainingError: if the ranks cannot find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield Ranks(device=device)
        return
    try:
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=meet_at,
            rank=int(os.environ.get("RANK", "-1")),
            world_size=size,
        )
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"{size} ranks are to train together and cannot find each other "
            f"({_first_line(error)}); start them with torchrun"
        ) from error
    yield Ranks(distributed.get_rank(), size, device)
    distributed.destroy_process_group()  # not after an error: the others may wait in a message


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"rank {local_rank} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}; give torchrun --nproc_per_node that many"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@torch.no_grad()
def _fill(tensors: Iterable[Tensor], flat: Tensor) -> None:
    taken = 0
    for tensor in tensors:
        tensor.copy_(flat[taken : taken + tensor.numel()].view(tensor.shape))
        taken += tensor.numel()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
