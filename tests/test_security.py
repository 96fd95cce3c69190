"""What strangers can reach, and what their names can do: nothing."""

import os
import threading

from conftest import listening
from test_train import tiny

from lib.launch import launch


def test_the_processes_of_one_machine_talk_on_its_loopback_alone(index, tmp_path):
    found, over = set(), threading.Event()

    def watch():
        while not over.wait(0.05):
            found.update(listening(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    launch(tiny(index, steps=4), tmp_path / "l1-1", 2)
    over.set()
    watcher.join()
    assert found == {"127.0.0.1"}, "the store in which they meet, and gloo"
