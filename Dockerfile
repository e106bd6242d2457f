# docker build -t flow-matching .
# docker run --gpus all -v $(pwd):/workspace flow-matching python -m fmd.main --config=configs/mnist_baseline.py
#
# jax[cuda12] brings its own CUDA libraries, so a plain Python image is enough; the host provides the driver.
FROM python:3.12-slim

# The package is installed from /opt/fmd. The command runs in /workspace, where configs/ is found and runs/ is written:
# the mounted checkout if there is one, else this copy.
WORKDIR /opt/fmd
COPY pyproject.toml README.md LICENSE ./
COPY fmd ./fmd
# hadolint ignore=DL3013  # the versions are pinned by the bounds in pyproject.toml
RUN pip install --no-cache-dir '.[cuda12,stream,tfds]'

WORKDIR /workspace
COPY configs ./configs
CMD ["python", "-m", "fmd.main", "--help"]
