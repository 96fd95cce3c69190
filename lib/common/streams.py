"""The random streams of training: a draw is seeded by (seed, stream, step), so that no two kinds of draw share numbers.

`lib.data.batches` puts two numbers before the stream (seed, and whether the run branches from another), the others one.
"""

# lib.data.batches
PASS = 0  # order of the excerpts in a pass over the data
BATCH = 1  # shift, channel order, sign and remix of a step's stems
STEMS = 2  # gain and equaliser of a step's stems

# lib.gan
UPDATE = 1  # whether the discriminator learns in a step
DROPOUT = 2
AUGMENTATION = 3
DITHER = 4
INSTANCE_NOISE = 8
EVALUATION = 2**31  # added to an evaluation excerpt's number: the noise of steps that no training reaches

# lib.evaluation.probe
PROBE_ORDER = 5  # order of the segments

# lib.studies.pieces
STUDY_TRACKS = 7  # the tracks that the seeds draw
