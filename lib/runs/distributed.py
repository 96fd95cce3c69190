"""The processes of a run: which one this is, and what all of them say together."""

import os
import socket
import sys

import torch
from torch import distributed

LOOPBACK = "127.0.0.1"


class Ranks:
    """Process `rank` of `world_size`, and its device. Alone without a launcher; under torchrun one of its group."""

    def __init__(self):
        self.rank, self.world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            # Both: gradients travel by NCCL, what the processes' host code says by gloo, without waiting for the GPU.
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            store = self._local_store() if os.environ["MASTER_ADDR"] == LOOPBACK else None
            distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.world_size)

    def _local_store(self):
        """Where the processes of one machine meet; the store that torch makes by itself listens to every network."""
        # gloo would take the address of the machine's name, which may be one on a network.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        place = LOOPBACK, int(os.environ["MASTER_PORT"])
        listening = socket.create_server(place).detach() if self.rank == 0 else None
        return distributed.TCPStore(*place, self.world_size, self.rank == 0, master_listen_fd=listening)

    def close(self):
        """Leave the group."""
        if self.world_size > 1:
            distributed.destroy_process_group()

    def broadcast(self, value=None):
        """What rank 0 gives, on every rank. Nobody goes on before rank 0 has come here."""
        values = [value]
        if self.world_size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def all_gather(self, value):
        """What every rank gives, by rank."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def all_reduce_mean(self, values):
        """The mean of a tensor over the ranks."""
        if self.world_size == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values / self.world_size

    def any_rank(self, flag):
        """Whether the flag is up on any rank."""
        if self.world_size == 1:
            return flag
        up = torch.tensor(int(flag))
        distributed.all_reduce(up, op=distributed.ReduceOp.MAX)
        return bool(up)
