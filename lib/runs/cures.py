"""The cures of a discriminator that overfits, by the names that studies and pages give them.

To add one that `lib.gan` or `lib.discriminator` knows, add a line to `CURES`.
"""

from lib.common.errors import UserError

# Parameters of `Config`; "width" multiplies the run's discriminator_width
CURES = {
    "none": {},
    "remix": {"remix_group": 4},
    "joint augmentation, p 0.5": {"augment_p": 0.5},
    "joint augmentation, adaptive p": {"augment_target": 0.3, "augment_steps": 200},
    "R1": {"r1": 0.3},
    "strong R1": {"r1": 3.0},
    "instance noise": {"instance_noise": 0.2},
    "R1, instance noise": {"r1": 0.3, "instance_noise": 0.2},
    "relativistic, R1, R2": {"adversarial_loss": "relativistic", "r1": 0.3, "r2": 0.3},
    "half width": {"width": 0.5},
    "early stop": {"discriminator_patience": 15},
    "LeCam": {"lecam": 0.3},
    "spectral norm": {"spectral_norm": True},
    "dropout": {"dropout": 0.3},
    "dither": {"dither": 0.03},
    "joint augmentation, R1": {"augment_p": 0.5, "r1": 0.3},
}
ALL, L1 = "all tracks", "L1 alone"
REFERENCES = ("none", ALL, L1)  # what a study of cures compares them with


def changes_of(cure):
    """The parameters of a cure, or of several joined by " + "; raises `UserError` for an unknown one."""
    changes = {}
    for part in cure.split(" + "):
        if part not in CURES:
            raise UserError(
                f"The cure {part!r} is unknown; choose one of {' · '.join(CURES)}, or several with + between."
            )
        changes |= CURES[part]
    return changes
