"""Studies: series of trainings that answer one question, each a command.

`overfitting.py` trains discriminators in the loop on few tracks and writes the tables of memorisation: `plans.py` lists
its trainings, `pieces.py` draws and cuts their tracks, `judge.py` is the trainer that also judges further sets,
`tables.py` gathers, `law.py` fits the passes until memorisation, and `cues.py` asks what a discriminator looks at.
`pair.py` trains the pair that a report shows. `worth.py` trains and scores the arms of a profile, and `bases.py` short
trials of their pre-training; `data.py` makes their data; `queue.py` runs trainings, several at a time.
At import time no more than torch, numpy, pandas and scipy is needed, and by `worth.py` and `data.py` also soundfile and
auraloss: machines with a GPU may have no more.
"""
