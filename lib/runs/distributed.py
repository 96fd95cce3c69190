"""The processes of a run (torch.distributed): the rank of this one, its device, and the collectives."""

import os
import socket
import sys

import torch
from torch import distributed

LOOPBACK = "127.0.0.1"


class Ranks:
    """Rank, world size and device of this process, and collectives on Python values.

    Under torchrun the process joins its group; without it, the world size is 1.
    """

    def __init__(self):
        self.rank, self.world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
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
        return distributed.TCPStore(*place, self.world_size, self.rank == 0, master_listen_fd=listening)

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
