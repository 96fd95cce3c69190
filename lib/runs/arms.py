"""The arms of the report: how each continues the pre-training of its seed, and what it adds to L1.

To add an arm, add a line to `ARMS`; its name in tables stands in `lib.evaluation.results.ARMS`.
"""

import dataclasses

from lib.config import Config

# L1 and the multi-resolution STFT loss at equal shares
SPECTRAL = {"spectral_share": 0.5}
# … and an adversarial share that makes L1 : spectral : adversarial 3 : 3 : 4
SPECTRAL_ADV = SPECTRAL | {
    "discriminator": "stft", "discriminator_width": 16, "adversarial_loss": "hinge", "adversarial_weight": 0.0,
    "adversarial_share": 2 / 5,
}  # fmt: skip
# … and feature matching: 3 : 3 : 4 : 4, so that the adversarial part has 57 % (EnCodec's has 79 %)
SPECTRAL_GAN = SPECTRAL_ADV | {"adversarial_share": 4 / 7, "feature_matching_share": 1 / 2}
SHARES = (0.03, 0.1, 0.4, 0.8)  # doses of the first report's discriminator
# Steps of l1-long, in steps of an arm; a step with stft and spectral loss costs 5.3 L1 steps (benchmarks/train.md)
LONG = 4

# {arm: (whether it has a discriminator, what it changes)}; gan-cures also changes what the parameter `cures` says
ARMS = {
    "l1": (False, {}),
    "l1-long": (False, {}),
    "spectral": (False, SPECTRAL),
    "spectral-adv": (True, SPECTRAL_ADV),
    "spectral-gan": (True, SPECTRAL_GAN),
    "frozen": (True, SPECTRAL_GAN | {"discriminator_updates": 0.0}),  # a discriminator that never learns
    "gan": (True, {}),  # the first report's
    "gan-cures": (True, {}),
    **{f"gan-share-{a:g}": (True, {"adversarial_weight": 0.0, "adversarial_share": a}) for a in SHARES},
}


def plan(parameters):
    """The trainings that the parameters of 02-train ask for, {<arm>-<seed>: `Config`}, each after what it starts from.

    Every seed has a pre-training of its own, pretrain-<seed>. `arms_once` are arms of the first seed only. For a given
    seed, all arms see the same excerpts in the same order.
    """
    p, runs = parameters, {}
    data = f"results/{p['run']}/data.json"
    for seed in p["seeds"]:
        start = f"pretrain-{seed}"
        common = Config.from_parameters(
            p, data=data, seed=seed, steps=p["pretrain_steps"], lr_final=p["lr_branch"], ema=0.0
        )
        runs[start] = common.without_adversary()
        gan = Config.from_parameters(
            p, data=data, seed=seed, steps=p["arm_steps"], lr=p["lr_branch"], tracks=p["arm_tracks"],
            start_from=f"results/{p['run']}/{start}",
        )  # fmt: skip
        for name in [*p["arms"], *(p["arms_once"] if seed == p["seeds"][0] else [])]:
            adversarial, changes = ARMS[name]
            changes = changes | (p["cures"] if name == "gan-cures" else {})
            changes |= {"steps": LONG * gan.steps} if name == "l1-long" else {}
            runs[f"{name}-{seed}"] = dataclasses.replace(gan if adversarial else gan.without_adversary(), **changes)
    return runs
