"""The benchmark of a GPU, whole, at sizes that say nothing, on what this machine has."""

import json

from benchmarks import gpu


def test_it_runs_whole_and_resumes(tmp_path, capsys):
    words = ["--tiny", "--out", str(tmp_path)]
    gpu.main([*words, "--seconds", "0.0001"])  # time for one part
    assert "The time is used up" in capsys.readouterr().out
    first = json.loads((tmp_path / "gpu.json").read_text())["done"]
    assert list(first) == [next(iter(gpu.parts(gpu.TINY)))] and "| – | – |" in (tmp_path / "gpu.md").read_text()
    gpu.main(words)
    assert capsys.readouterr().out.count(" s  ") == len(gpu.parts(gpu.TINY)) - 1
    done, page = json.loads((tmp_path / "gpu.json").read_text())["done"], (tmp_path / "gpu.md").read_text()
    assert done.keys() == gpu.parts(gpu.TINY).keys() and "– |" not in page.split("## A training step")[0]
    for name in gpu.NETWORKS:
        outputs, gradient, worst = done[f"network {name} fp32"]
        assert outputs < gpu.PRECISIONS["fp32"][0] and gradient < gpu.PRECISIONS["fp32"][1]
        assert worst >= gradient / 2
    gpu.main(words)
    assert " s  " not in capsys.readouterr().out, "nothing is done twice"


def test_what_does_not_fit_stands_in_the_page(tmp_path, monkeypatch):
    def too_large(*_, **__):
        raise gpu.torch.OutOfMemoryError

    monkeypatch.setattr(gpu, "parts", lambda size: {"step 100 64 L1 TF32": too_large})
    gpu.main(["--tiny", "--out", str(tmp_path)])
    assert "| 100 | 64 | L1 | TF32 | out of memory | – | – |" in (tmp_path / "gpu.md").read_text()


def test_the_epoch_is_that_of_the_fastest_batch():
    done = {"step 100 16 L1 TF32": {"seconds": 1.0}, "step 100 64 L1 TF32": {"seconds": 2.0}}
    assert "L1 and TF32, batch 64, an epoch of 40,000 excerpts takes 1250 s" in "\n".join(gpu._epoch(done))
    done["step 100 16 L1 bf16"] = {"seconds": 0.25}
    assert "L1 and bf16, batch 16, an epoch of 40,000 excerpts takes 625 s" in "\n".join(gpu._epoch(done))
