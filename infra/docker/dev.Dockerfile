# Everything, to run `make test` and `make demo` in; your checkout comes in at /archon.
#
#   docker build -f infra/docker/dev.Dockerfile -t archon-dev:1 .
#   docker run -it -v "$PWD":/archon archon-dev:1
ARG PYTHON=3.11-bookworm

FROM python:${PYTHON}
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libegl1 libgl1 libgles2 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home archon
WORKDIR /archon
USER archon
ENTRYPOINT ["make"]
CMD ["install"]
