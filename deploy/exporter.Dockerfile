# Builds models: `convoy build` with torch, and the gateway that proves the result. Run from the root
# of the checkout:
#
#   docker build -f deploy/exporter.Dockerfile -t convoy-exporter .
#
# For TensorRT plans BASE_IMAGE is NVIDIA's TensorRT image of the same release as the Triton image, so
# that the TensorRT that builds a plan is the one that loads it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG BASE_IMAGE=${PYTHON_IMAGE}

FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY deploy/build.txt ./
RUN pip install --require-hashes -r build.txt
COPY . .
# Beside the wheels: the packages of the extra `export`, one per line.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
    && python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["export"], sep="\n")' > /wheels/export.txt

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Convoy exporter" \
      org.opencontainers.image.licenses="Apache-2.0"
# The index with torch's CPU build, which is enough for building; empty: pip's own index, with CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/serve.txt /tmp/serve.txt
COPY --from=wheels /wheels/export.txt /tmp/export.txt
COPY --chmod=755 deploy/torch-cpu.sh /tmp/torch-cpu.sh
# It sees the packages of the base image, including TensorRT. The packages of serving stay unchanged.
RUN python3 -m venv --without-pip --system-site-packages /opt/venv \
    && pip --python /opt/venv/bin/python install --require-hashes -r /tmp/serve.txt \
    && sed 's/ *\\$//; /--hash/d' /tmp/serve.txt > /tmp/serving.txt \
    && /tmp/torch-cpu.sh "${TORCH_INDEX}" /tmp/export.txt pip --python /opt/venv/bin/python \
    && pip --python /opt/venv/bin/python install -c /tmp/serving.txt -r /tmp/export.txt
COPY --from=wheels /wheels/*.whl /tmp/wheels/
RUN pip --python /opt/venv/bin/python install --no-deps /tmp/wheels/*.whl
WORKDIR /convoy
COPY . .
COPY --chmod=755 deploy/exporter-entrypoint.sh /usr/local/bin/exporter-entrypoint
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/cache \
    CONVOY_REPOSITORY=/models
VOLUME /cache
ENTRYPOINT ["exporter-entrypoint"]
CMD ["--help"]
