"""A gallery of fmd: small scripts, each one idea and one picture.

    python -m experiments.gallery                      # draws all into experiments/gallery/pictures
    python -m experiments.gallery solvers guidance     # or these

Each script has a function `draw(small=False)` that makes its picture. `plane` holds distributions in the plane whose
velocity is known exactly, `style` the look of all pictures.
"""

SECTIONS = {
    "Paths from noise to data": (
        "marginals",
        "schedules",
        "paths",
        "predictions",
        "times",
        "couplings",
        "interpolants",
    ),
    "Solving the flow": ("solvers", "grids", "adaptive", "change_schedule", "sde", "likelihood"),
    "Guidance and conditions": ("guidance", "autoguidance", "conditions"),
    "Training, and one step": ("ten_lines", "one_jump", "one_step"),
    "Digits": ("appearing", "weights", "slerp", "walk"),
    "A flow as a prior": ("posterior", "operators", "restoration", "editing", "classes", "strange"),
    "Away from here": ("program",),
}
"""The scripts in the order in which a reader meets them."""
