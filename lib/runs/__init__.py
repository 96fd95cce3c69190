"""From a configuration to a trained run.

`folders.py` names, claims and sets aside the folders of runs, `build.py` makes networks and data, `checkpoint.py` holds
what a training resumes from, `distributed.py` its ranks, and `launch.py` starts it; `arms.py` and `cures.py` list what
is trained. The package imports `lib.config`,
`lib.discriminator`, `lib.models`, `lib.data` and `lib.common` only.
"""
