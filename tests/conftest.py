"""Small synthetic music for the tests: quick to make, different per stem, exact in 16 bits."""

import contextlib
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

os.environ.setdefault("MPLBACKEND", "agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # several tests run at once: one thread for each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SOURCES = ("drums", "bass", "other", "vocals")
RATE = 44_100
# What a folder may be called: HTML, Markdown, LaTeX, mathtext. It holds no slash, as no folder's name does.
STRANGE = r"""$\frac$ <img src=x onerror=alert(1)> "q" 'n &amp; *a* _b_ | `t` """
STRANGE += "[x](javascript:alert(1)) $x$ <script>alert(2)"


def synthetic_stems(seed, seconds=4.0):
    """int16 stems (4, samples, 2): clicks of noise, a low saw, two chords, a vibrato voice."""
    random = np.random.RandomState(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    beat = (t * random.uniform(1.5, 2.5)) % 1
    note = random.uniform(45, 90)
    drums = random.randn(len(t)) * np.exp(-beat * 25)
    bass = ((t * note) % 1 - 0.5) * np.exp(-beat)
    other = sum(np.sin(2 * np.pi * note * k * t) for k in (4, 5, 6)) / 3
    vocals = sum(np.sin(2 * np.pi * (note * 6 * t + 0.4 * np.sin(5 * t)) * k) / k for k in (1, 2, 3, 4))
    mono = np.stack([drums, bass, other, vocals])
    pan = random.uniform(0.6, 1.0, size=(4, 1, 2))
    return np.rint(mono[:, :, None] * pan * 4000 / np.abs(mono).max(1)[:, None, None]).astype(np.int16)


def write_track(folder, stems):
    """A musdb wav folder of int16 stems (4, samples, 2), the mixture their exact sum."""
    folder.mkdir(parents=True)
    for name, audio in zip(("mixture", *SOURCES), (stems.sum(0, dtype=np.int16), *stems), strict=True):
        soundfile.write(folder / f"{name}.wav", audio, RATE, subtype="PCM_16")


def listening(process):
    """Addresses at which a process (its number) and those that it has started wait for connections."""
    found = set()
    for member in [(first := psutil.Process(process)), *first.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            found |= {c.laddr.ip for c in member.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture(scope="session")
def musdb_folder(tmp_path_factory):
    """A musdb folder of wav tracks: six for training and validation, two for testing."""
    root = tmp_path_factory.mktemp("musdb")
    for k in range(6):
        write_track(root / "train" / f"Band {k} - Song", synthetic_stems(k))
    for k in (10, 11):
        write_track(root / "test" / f"Band {k} - Song", synthetic_stems(k))
    (root / "musdb.yaml").write_text(_setup(["Band 2 - Song", "Band 5 - Song"]))
    return root


def _setup(validation):
    import musdb
    import yaml

    setup = yaml.safe_load(Path(musdb.__path__[0], "configs", "mus.yaml").read_text())
    return yaml.safe_dump(setup | {"validation_tracks": validation})


@pytest.fixture(scope="session")
def index(musdb_folder, tmp_path_factory):
    """The data index of `musdb_folder`."""
    from lib.data import musdb as decode
    from lib.data import tracks as data

    cache = tmp_path_factory.mktemp("cache")
    sets = {name: decode.decode(tracks, cache) for name, tracks in decode.list_musdb(musdb_folder).items()}
    data.write_index(cache / "data.json", sets)
    return cache / "data.json"


@pytest.fixture(scope="session")
def real_excerpt():
    """stempeg's six seconds of a MUSDB18 test track: a .stem.mp4 file."""
    import stempeg

    return Path(stempeg.example_stem_path())
