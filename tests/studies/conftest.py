"""Tracks of noise, a pre-training on some of them, and trainings in this process."""

import numpy as np
import pytest

from lib.config import Config
from lib.data.tracks import SAMPLERATE, Track, write_index
from lib.runs.distributed import Ranks
from lib.runs.folders import claim
from lib.studies import overfitting
from lib.studies.judge import JudgingTrainer
from lib.train import Interrupted, Trainer

SECONDS = 3.0  # of a track


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """(data.json, folder of the pre-training) of tracks of noise: 14 to train on, of which the first four are heard."""
    folder = tmp_path_factory.mktemp("noise")

    def track(name, seconds=SECONDS):
        random = np.random.RandomState(sum(map(ord, name)) * 7 + len(name))
        samples = round(seconds * SAMPLERATE)
        stems = (random.randn(4, 2, samples) * 1500).astype(np.int16)
        np.save(folder / f"{name}.npy", np.concatenate([stems.sum(0, dtype=np.int16)[None], stems]))
        return Track(name, str(folder / f"{name}.npy"), samples, 0.01, 0.1, name)

    sets = {"train": [track(f"train {k}") for k in range(12)] + [track(f"long {k}", 4 * SECONDS) for k in range(2)]}
    sets |= {name: [track(f"{name} {k}") for k in range(2)] for name in ("valid", "heldout-a", "heldout-b")}
    write_index(folder / "data.json", sets)
    config = Config(
        data=str(folder / "data.json"), tracks=4, steps=2, batch=4, channels=4, depth=2, lstm_layers=0, seconds=0.25,
        shift_seconds=0.05, stride_seconds=0.1, evaluate_every=2, evaluation_excerpts=2, remix_group=0,
    )  # fmt: skip
    Trainer(claim(config, folder / "start")[0], folder / "start", Ranks()).run()
    return folder / "data.json", folder / "start"


class Here:
    """Instead of `launch`: the training in this process. stop: steps after which it is interrupted."""

    stop = None

    def __call__(self, config, folder, *, program, **_):
        assert program == "lib.studies.judge"
        config, _ = claim(config, folder)
        trainer = JudgingTrainer(config, folder, Ranks())
        step = trainer.train_step

        def counted():
            if self.stop is not None:
                self.stop -= 1
                trainer.stopping = self.stop <= 0
            return step()

        trainer.train_step = counted
        try:
            trainer.run()
        except Interrupted:
            self.stop = None
            raise


@pytest.fixture
def launched_here(monkeypatch):
    monkeypatch.setattr(overfitting, "launch", found := Here())
    return found
