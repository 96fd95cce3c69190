"""Run jobs that depend on each other, several at a time, for a given number of seconds."""

import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import NamedTuple


class Job(NamedTuple):
    """Something to run, after the jobs that it names."""

    name: str
    work: object  # called without arguments; what it has finished it must skip when called again
    after: tuple = ()


def run(jobs, workers, seconds=None):
    """Run `jobs` in their order, `workers` at a time, and print a line for each; returns the errors, {name: error}.

    A job whose predecessor failed is skipped. After `seconds`, this process ends at once with status 75; the
    processes that its jobs have started save and stop, and the same call goes on from there.
    """
    if seconds:
        timer = threading.Timer(seconds, _stop, [seconds])
        timer.daemon = True
        timer.start()
    waiting, running, done, errors = list(jobs), {}, set(), {}
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            for job in [job for job in waiting if done.issuperset(job.after)][: workers - len(running)]:
                waiting.remove(job)
                running[pool.submit(_timed, job)] = job
            if not running:  # what is left needs a job that failed
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                if error := future.exception():
                    errors[job.name] = error
                    print(f"{job.name} failed: {error}", flush=True)
                else:
                    done.add(job.name)
                    print(f"{job.name} took {future.result():.0f} s; {len(done)} of {len(jobs)} done.", flush=True)
    return errors


def _timed(job):
    began = time.monotonic()
    job.work()
    return time.monotonic() - began


def _stop(seconds):
    print(f"Stopped after {seconds:g} seconds; the same command goes on from here.", flush=True)
    os._exit(75)  # EX_TEMPFAIL
