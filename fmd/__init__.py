"""fmd: flow matching for images in JAX.

Conventions, everywhere: t = 0 is noise and t = 1 is data; x0 is noise, x1 is data; images are NHWC float32 in [-1, 1]
inside and uint8 at every boundary; guidance weight 1 is conditional, 0 unconditional; labels are int32 and
`num_classes` itself is the null label.

Import the room you need (`fmd.math.schedules`, `fmd.sampling.sampler`, ...). Importing `fmd` loads nothing else.
"""

__version__ = "0.1.0"
