"""Thousands of steps: memory, step time and open files stay what they were."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support import start_training, tiny

from lib.runs.folders import claim

PAGE = 4096  # bytes; statm counts in pages


class Watch(threading.Thread):
    """Looks at a process ten times a second: rows of (steps logged, resident memory in bytes, open files)."""

    def __init__(self, pid, log):
        super().__init__(daemon=True)
        self.place, self.log, self.rows = Path(f"/proc/{pid}"), log, []

    def run(self):
        while self.place.exists():
            try:
                memory = int((self.place / "statm").read_text().split()[1]) * PAGE
                files = len(list((self.place / "fd").iterdir()))
                lines = self.log.read_text().splitlines() if self.log.exists() else []
                self.rows.append((json.loads(lines[-1])["step"] if lines else 0, memory, files))
            except (OSError, ValueError):  # it is ending, or a line is being written
                pass
            time.sleep(0.1)


@pytest.mark.slow
def test_five_thousand_steps_stay_flat(index, pretrained, tmp_path):
    """The adversarial game with every cure that keeps something from step to step."""
    folder = tmp_path / "gan-1"
    config = tiny(
        index, start_from=str(pretrained), steps=5000, evaluate_every=50, adversarial_share=0.1, ema=0.99, batch=4,
        augment_target=0.3, r1=0.3, lecam=0.3, spectral_norm=True, instance_noise=0.1, keep="best", keep_states=2,
    )  # fmt: skip
    claim(config, folder)
    run = start_training(folder, 1)
    watch = Watch(run.pid, folder / "metrics.jsonl")
    watch.start()
    output, _ = run.communicate()
    assert run.returncode == 0, output[-2000:]
    # After the allocator has settled, and before the process ends
    steps, memory, files = np.array([row for row in watch.rows if 500 <= row[0] < config.steps]).T
    slope = np.polyfit(steps / 1000, memory / 1e6, 1)[0]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speed = np.array([line["steps_per_second"] for line in lines[10:]])
    first, last = np.median(speed[:30]), np.median(speed[-30:])
    print(
        f"\n{len(lines) * 50} steps: {np.median(memory) / 1e6:.0f} MB resident, slope {slope:+.3f} MB per 1,000 steps; "
        f"{first:.1f} steps/s at first, {last:.1f} at last; {np.median(files):.0f} open files, "
        f"{files.min()} to {files.max()}"
    )
    assert lines[-1]["step"] == 5000 and len(steps) > 200
    assert abs(slope) < 1, "a leak of one small tensor (1 kB) per step would be 1 MB per 1,000 steps"
    assert last > 0.9 * first, "nothing in a step grows with the steps"
    halves = np.array_split(files, 2)
    assert np.median(halves[0]) == np.median(halves[1]) and files.max() <= files.min() + 3, (
        "those of one save at a time"
    )
