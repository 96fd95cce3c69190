"""The two studies: trainings beyond one notebook's, several at a time, which stop and go on at any step.

overfitting.py  when a discriminator memorises, and what cures it
worth.py        what a discriminator is worth: trains and scores the arms of a profile
queue.py        jobs that need each other, several at a time
"""
