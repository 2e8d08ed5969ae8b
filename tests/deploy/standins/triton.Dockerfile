# A Triton for machines that do not reach NVIDIA's registry: a real tritonserver, that of the PyTriton
# wheel, with the project's ONNX Runtime backend in the place of the native one.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/serve.txt /tmp/serve.txt
RUN pip install --require-hashes -r /tmp/serve.txt
WORKDIR /standin
COPY server server
RUN <<'END' python
from pathlib import Path
from server.runners.tritonserver_wheel import environment, install, lay_out_backends

server = install(Path("/standin/cache"))
lay_out_backends(server, Path("/standin/backends"))
variables = " ".join(f"{name}={value}" for name, value in environment().items() if value)
command = Path("/usr/local/bin/tritonserver")
# What the image of NVIDIA's has in other places: its backends, and no GPU to look for.
command.write_text(f"""#!/bin/sh
exec env -i {variables} CUDA_VISIBLE_DEVICES= {server}/bin/tritonserver "$@" \\
    --backend-directory=/standin/backends --allow-gpu-metrics=false --pinned-memory-pool-byte-size=0
""")
command.chmod(0o755)
END
EXPOSE 8000 8001 8002
USER 1000:1000
