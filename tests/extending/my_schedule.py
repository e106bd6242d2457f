"""A schedule of one's own: alpha and sigma as functions of t; derivatives and inverse follow."""

from fmd.math import schedules


@schedules.register("my_schedule")
def my_schedule(power: float = 2.0):
    return schedules.from_functions(lambda t: t**power, lambda t: 1.0 - t**power, "my_schedule", (power,))
