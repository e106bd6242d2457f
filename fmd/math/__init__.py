"""The mathematics of flow matching: pure functions of arrays, each proven against a closed form.

Time. t = 0 is noise and t = 1 is data, everywhere. t is a scalar or one value per example [B], never below float32.

Pair. x0 is noise, x1 is data, and the path between them and its velocity are

    x_t = alpha(t) x1 + sigma(t) x0,        v_t = alpha'(t) x1 + sigma'(t) x0

where log_snr = log(alpha^2/sigma^2) grows. A network learns E[v_t | x_t = x], the velocity field whose flow carries
noise at t = 0 to data at t = 1.

Predictions. "velocity", "data" (E[x1 | x]), "noise" (E[x0 | x]) and "score" (grad log p_t) at one (x, t) determine each
other by affine maps. Which of them a network predicts is a matter of taste; which formulas are finite at an end is not,
and each file says what happens there.

Guidance. Weight w = 1 is conditional, w = 0 unconditional: v = v_null + w (v_cond - v_null). The "guidance scale" s of
some papers is w - 1.

Conditions. y, what a network is told beside x and t, is int32 labels [B], or a dictionary of named parts [B, ...].

Order of arguments. A network is predict(x, t, y), a field is field(t, x, args=None) -> dx/dt for a batch x [B, ...].

Dtypes. Functions follow their input: float32 in, float32 out; float64 under jax_enable_x64; bfloat16 arrays keep their
dtype while coefficients are computed in float32. No function relies on implicit dtype promotion or rank promotion.

Randomness. Functions that draw take a typed key (jax.random.key). Times are drawn per global example index, so that the
result does not depend on the number of devices.

The files, in the order in which a computation uses them:

    pixels        between uint8 and [-1, 1]; dequantisation and bits per dimension
    schedules     alpha, sigma, their derivatives, log_snr and its inverse, by name or from two functions
    paths         x_t and its velocity; the twelve conversions
    interpolants  paths between any two images, with a noise of their own on the way
    times         training times: stratified over the global batch, shifted, clipped
    couplings     which noise goes with which image of a batch
    guidance      rules that combine two predictions, with a memory of earlier steps where they need one
    fields        a network's prediction as a field: guided in one network call, along another schedule, with noise
    grids         where the steps of a solver end
    simulators    solving a field from noise to data or back, on fixed grids or with step control per example
    solvers       the numerical methods behind it by name, and what they cost (Diffrax's: runge_kutta)
    likelihood    log-density by the change of variables
    operators     what is measured of an image, with transposes and pseudo-inverses (those of images: image_operators)
    restoration   draws of an image given a measurement; its methods are in posterior_fields, flower and d_flow
    editing       inversion to noise, edits by another condition, arcs between noises
    classification classes of an image by the errors or the likelihood of a conditional flow
    anomaly       scores of strangeness, and how good they are
    conjugate_gradients linear systems, each example by itself
    few_step      training targets for networks that take long steps: MeanFlow, solved flows, shortcut models, reflow
    broadcasting  times and weights shaped for arrays

Schedules, times, couplings, guidance rules and grids are chosen by `get(name, **parameters)`, and each of these files
has `register(name)`, a decorator under which a function of your own becomes one more. Wrong values raise ValueError
where they enter, in one line that names the value and the rule. Training targets and a guided sampler, in full:

    from fmd.math import fields, guidance, paths, schedules, simulators, times

    schedule = schedules.get("linear")
    t = times.get("logit_normal", mean=0.0, std=1.0, stratified=True)(key, (batch,))
    x_t, target = paths.interpolate(schedule, x0, x1, t), paths.velocity(schedule, x0, x1, t)
    rule = guidance.get("cfg", weight=3.0, interval=(0.2, 0.9))
    field = fields.guided_field(predict, null_label, rule)
    images = simulators.solve_ode(field, noise, args=labels, solver="heun", steps=50).x
"""
