"""The processes of a run (torch.distributed): the rank of this one, its device, and the collectives."""

import os
import socket
import sys
from datetime import timedelta

import torch
from torch import distributed

from lib.common.errors import UserError
from lib.common.words import join

LOOPBACK = "127.0.0.1"
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # where torchrun, or a platform, says it
REMEDY = "start every rank, best by torchrun, or unset WORLD_SIZE and RANK to train in one process"
PATIENCE = timedelta(minutes=5)  # for ranks on one machine to meet


class Ranks:
    """Rank, world size and device of this process, and collectives on Python values.

    Under torchrun, or where a platform sets the variables `PLACE`, the process joins its group; else the world size is
    1. Raises `UserError` if some of the variables are missing or wrong, or the group is not complete in time.
    """

    def __init__(self):
        self.rank, self.world_size = _place()
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", self.rank % torch.cuda.device_count()))
            self.device = torch.device("cuda", local)
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            if distributed.is_torchelastic_launched():
                self._join()  # if that fails, torchrun starts all again
            else:
                self._meet()

    def _meet(self):
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        print(f"Rank {self.rank} of {self.world_size} waits for the others at {place}.", flush=True)
        try:
            self._join()
        except (OSError, ValueError, RuntimeError) as error:  # torch's are RuntimeErrors
            cause = str(error).splitlines()[0].rstrip(".")
            raise UserError(
                f"Rank {self.rank} of {self.world_size} did not meet the others at {place} ({cause}); {REMEDY}."
            ) from error

    def _join(self):
        # Gradients travel by NCCL, Python values by gloo, which does not wait for the GPU
        backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
        store = self._local_store() if os.environ["MASTER_ADDR"] == LOOPBACK else None
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.world_size)

    def _local_store(self):
        """A rendezvous store on the loopback; torch's own would listen to every network."""
        # By default gloo takes the address of the machine's name, which may be that of a network
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        place = LOOPBACK, int(os.environ["MASTER_PORT"])
        listening = socket.create_server(place).detach() if self.rank == 0 else None
        rank_0 = self.rank == 0
        return distributed.TCPStore(*place, self.world_size, rank_0, timeout=PATIENCE, master_listen_fd=listening)

    def close(self):
        """Leave the process group."""
        if self.world_size > 1:
            distributed.destroy_process_group()

    def broadcast(self, value=None):
        """Broadcast rank 0's value to every rank; also a barrier on rank 0."""
        values = [value]
        if self.world_size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def all_gather(self, value):
        """The values of all ranks, as a list in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def any_rank(self, flag):
        """Whether `flag` is true on any rank."""
        up = torch.tensor(int(flag))
        if self.world_size > 1:
            distributed.all_reduce(up, op=distributed.ReduceOp.MAX)
        return bool(up)


def _place():
    """(rank, world size) by the environment."""
    try:
        rank, world_size = int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
    except ValueError as error:
        raise UserError(f"RANK and WORLD_SIZE must be numbers ({error}); {REMEDY}.") from error
    missing = [name for name in PLACE if name != "LOCAL_RANK" and not os.environ.get(name)]
    if world_size > 1 and missing:
        raise UserError(
            f"WORLD_SIZE is {world_size}, but {join(missing)} {'is' if len(missing) == 1 else 'are'} not set; {REMEDY}."
        )
    if not 0 <= rank < world_size:
        raise UserError(f"RANK is {rank}, which must be below WORLD_SIZE, {world_size}; {REMEDY}.")
    return rank, world_size


class Means:
    """Means of metrics over steps and ranks. Adding does not wait for the GPU."""

    def __init__(self, ranks):
        self.ranks, self.sums = ranks, {}  # {metric: (sum, count)}
        self.first_bad = torch.tensor(-1, device=ranks.device)

    def add(self, step, metrics):
        """Add {name: scalar tensor} of a step; not every step has every metric."""
        for name, value in metrics.items():
            total, count = self.sums.get(name, (0, 0))
            self.sums[name] = total + value, count + 1
        bad = ~torch.stack([value.isfinite().all() for value in metrics.values()]).all()
        self.first_bad = torch.where(bad & (self.first_bad < 0), step, self.first_bad)

    def first_bad_step(self):
        """The first step with an infinite or NaN metric on any rank, or None."""
        return min((step for step in self.ranks.all_gather(self.first_bad.item()) if step >= 0), default=None)

    def take(self):
        """{name: mean} over all ranks and the steps added since the last call."""
        names = sorted(self.sums)
        means = torch.stack([self.sums[name][0] / self.sums[name][1] for name in names])
        everywhere = self.ranks.all_gather(means.tolist())
        self.sums = {}
        return {name: sum(values) / len(values) for name, *values in zip(names, *everywhere, strict=True)}

    def gather(self):
        """The sums of every rank, on the CPU, for a checkpoint."""
        return self.ranks.all_gather({name: (total.cpu(), count) for name, (total, count) in self.sums.items()})
