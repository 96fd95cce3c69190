import gc

import pytest
import tqdm

from lib.common.progress import progress


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_bar_says_nothing(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tqdm.tqdm, "refresh", interrupt)
    with pytest.raises(KeyboardInterrupt):
        progress("songs", 3)
    gc.collect()
