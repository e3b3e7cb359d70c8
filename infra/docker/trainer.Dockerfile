# A training host: a TPU virtual machine, or with ROLES=train any machine. No Beam, no torch.
#
#   docker build -f infra/docker/trainer.Dockerfile -t IMAGE:TAG .
#   docker run --privileged --net=host -v /mnt/data:/data IMAGE:TAG train language --dataset /data/set --workdir /data/lm
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON}
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/archon
COPY infra/constraints.txt infra/constraints.txt
COPY setup.py pyproject.toml README.md ./
COPY models models
COPY pipelines pipelines
COPY tasks tasks
COPY infra infra
RUN pip install "setuptools>=70,<81" "wheel>=0.45" \
    && pip install --no-build-isolation -c infra/constraints.txt ".[train,tpu]" \
    && useradd --create-home archon
USER archon
ENTRYPOINT ["archon"]
CMD ["--help"]
