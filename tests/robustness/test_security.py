"""What strangers can reach, and what their names can do: nothing."""

import os
import threading

import pytest
from support import STRANGE, listening, tiny, watched_page, write_notebook

from lib.common.errors import UserError
from lib.common.files import read_json, write_json
from lib.data.songs import song_name
from lib.data.tracks import read_index
from lib.evaluation.results import evaluated, evaluated_sets
from lib.runs.folders import trained
from lib.runs.launch import launch


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


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/b", "."])
def test_an_index_cannot_name_a_track_outside_the_results(index, tmp_path, name):
    content = read_json(index)
    content["sets"]["test"][0]["name"] = name
    write_json(tmp_path / "data.json", content)
    with pytest.raises(UserError, match="which is no file's name"):
        read_index(tmp_path / "data.json")


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>-1", "$\\frac-1", "[x](javascript:alert)-1", "gan"])
def test_an_arm_of_a_strange_name_is_refused(tmp_path, name):
    write_json(tmp_path / name / "config.json", {"config": {}, "finished": True})
    write_json(tmp_path / name / "model.safetensors", {})
    write_json(tmp_path / name / "eval" / "test" / "tracks" / "Band - Song.json", {})
    for read in (trained, lambda run: evaluated(run, "test")):
        with pytest.raises(UserError, match="An arm's folder cannot be called"):
            read(tmp_path)


def test_a_test_set_of_a_strange_name_is_refused(tmp_path):
    write_json(tmp_path / "gan-1" / "eval" / "<script>alert(1)" / "tracks" / "Band - Song.json", {})
    with pytest.raises(UserError, match="A test set cannot be called '<script>alert"):
        evaluated_sets(tmp_path)


@pytest.mark.parametrize("name", ["...mp3", "...stem.mp4", ".stem.mp4"])
def test_a_song_cannot_put_its_stems_outside_their_folder(tmp_path, name):
    with pytest.raises(UserError, match="has no name to give to its stems"):
        song_name(tmp_path / name)


SHOWN = f"""
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from lib.report import tables as report
from lib.report.audio import player, players
from lib.common.words import literal
name, sound = {STRANGE!r}, np.zeros((2, 4410))
pd.options.display.max_colwidth = None
display(Markdown(f"**Listen:** {{literal(name)}}"), player(sound, 44100, name))
display(players({{name: {{name: sound}}}}, 44100))
display(report.plain_table(pd.DataFrame([{{"track": name}}])))
"""


def test_names_are_shown_letter_by_letter_in_a_jupyterlab(chromium, lab):
    address, folder = lab
    write_notebook(folder / "names.ipynb", [f"{SHOWN}\ndisplay(Markdown('$y$'))"])
    with watched_page(chromium, (address, "data:", "blob:", address.replace("http", "ws"))) as page:
        page.goto(f"{address}lab/tree/names.ipynb?token=secret")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=40_000)
        page.locator(".jp-CodeCell .cm-content").nth(0).click()
        page.keyboard.press("Shift+Enter")
        page.locator("mjx-container").wait_for(timeout=20_000)  # the formula that is one has been set, after the names
        outputs = page.locator(".jp-OutputArea-output").all()
        assert [output.inner_text().count(STRANGE) for output in outputs] == [1, 1, 2, 1, 0]
        assert page.locator("mjx-container").count() == 1
