"""Music source separation with Demucs v1, adversarial training, and a report on its effect.

The modules at the top are the method: start reading there. The packages support them.

    config.py         every parameter of a run, with its range
    demucs.py         the generator
    discriminator.py  the discriminators: patch, STFT of one and of several scales, multi-period
    losses.py         L1 and spectral loss, adversarial losses, feature matching, R1, LeCam, the loss balancer
    gan.py            the adversary: its step, its cures, its gradient
    memorisation.py   measures of what a discriminator has memorised, and the diagnosis
    train.py          the trainer:                    python -m lib.train FOLDER name=value …
    pipeline.py       the whole report:               python -m lib.pipeline quick name=value …

    data/             folders of tracks, their decoding and index, batches with augmentation, songs in any format
    models/           all generators, their weights, the original checkpoints, fast CPU inference
    runs/             folders of runs, launch, checkpoints, the ranks of a distributed training
    separate/         separation of whole songs:      python -m lib.separate SONG --out FOLDER
    evaluation/       scores (bss_eval), spectral measures, detectability, the D-probe, statistics
    report/           tables, sentences, figures and pages of the notebooks
    studies/          series of trainings:            python -m lib.studies.overfitting FOLDER …
    corpus/           the composed data set
    draw_audio/       DRAW AUDIO, the instrument:     python -m lib.draw_audio OUT.html
    common/           errors, files, processes, untrusted input, the machine's limits, provenance, words

Who may import whom (tests/test_imports.py checks every import, also those inside functions):

    common                    nothing of lib
    corpus                    common
    draw_audio                corpus, common
    demucs, discriminator,    common.errors only, so that each file stands alone. Two functions go beyond:
    losses, memorisation      Demucs.load_published calls models.original, spectral_loss calls auraloss
    data                      common
    models                    demucs, data, common
    gan                       discriminator, losses, memorisation, data, common
    separate                  demucs, models, data, common
    config                    discriminator, losses, models, data, common
    runs                      config, discriminator, models, data, common
    train                     common, and all from demucs to runs except separate: a rank loads no pandas, scipy,
                              matplotlib or IPython, and auraloss only for the spectral loss
    evaluation                all above
    report                    all above
    studies                   all above
    pipeline                  all above; no module imports pipeline, and only studies, pipeline and notebooks report
"""
