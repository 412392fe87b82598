# docs/container.md says how to build and run it. By tag: where this was written the digest could not be looked up;
# `--build-arg BASE=docker.io/library/python:3.11-slim@sha256:...` pins it.
ARG BASE=docker.io/library/python:3.11-slim
FROM ${BASE}

# run: README's main job. cuda: the same on NVIDIA GPUs. test: the tests, too.
ARG LOCK=run

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/venv/bin:$PATH

WORKDIR /app
COPY docker/${LOCK}.lock /tmp/requirements.lock
# The lock is complete and hashed: pip resolves nothing.
RUN python3 -m venv /opt/venv \
    && pip install --require-hashes --no-deps -r /tmp/requirements.lock \
    && rm /tmp/requirements.lock

# The tests apply the diffs of docs/howto with git.
# hadolint ignore=DL3008
RUN if [ "${LOCK}" = test ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends git \
        && rm -rf /var/lib/apt/lists/*; \
    fi

COPY . .
# A numeric user, so that a cluster sees that it is not root; `runs` and its home are all that it may write.
RUN mkdir -p runs /home/smz && chown 1000:1000 runs /home/smz
ENV HOME=/home/smz
USER 1000:1000
VOLUME /app/runs

ENTRYPOINT ["python"]
CMD ["-m", "experiments.breakout"]
