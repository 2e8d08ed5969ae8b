# The gateway, with ONNX Runtime for models in its own process. Run from the root of the checkout:
#
#   docker build -f deploy/gateway.Dockerfile -t convoy-gateway .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/serve.txt deploy/build.txt ./
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-compile --require-hashes -r serve.txt \
    && pip install --require-hashes -r build.txt
# A third of it is never used for serving: tests, types, tools that make models, libraries and
# headers for programs in C and Fortran, grammars of languages to colour, fonts and AVIF, debugging
# symbols.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* \
    && packages="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find "$packages/numpy" -type d -name tests -prune -exec rm -r {} + \
    && find "$packages" -name '*.pyi' -delete \
    && find "$packages/pygments/lexers" -type f ! -name '__init__.py' ! -name _mapping.py \
        ! -name python.py ! -name special.py -delete \
    && rm -r "$packages"/numpy/f2py "$packages"/numpy/distutils "$packages"/numpy/_core/include \
        "$packages"/onnxruntime/tools "$packages"/onnxruntime/transformers \
        "$packages"/onnxruntime/quantization "$packages"/onnxruntime/datasets \
        "$packages"/onnxruntime/capi/libonnxruntime.so.* \
        "$packages"/PIL/_avif.*.so "$packages"/pillow.libs/libavif-* \
        "$packages"/PIL/_imagingft.*.so "$packages"/pillow.libs/libfreetype-* \
        "$packages"/pillow.libs/libharfbuzz-* "$packages"/pillow.libs/libbrotli* \
        "$packages"/pillow.libs/libpng16-* \
    && strip --strip-debug "$packages"/ml_dtypes/*.so "$packages"/rapidjson*.so
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
    && pip --python /opt/venv/bin/python install --no-compile --no-deps /wheels/*.whl \
    && rm -r /opt/venv/lib/python3*/site-packages/export/weights
# Compile what serving imports now, since nothing can be written later. The bytecode has no time
# stamps, so that the same sources produce the same layer.
RUN PYTHONPYCACHEPREFIX=/tmp/pycache /opt/venv/bin/python -c "\
import convoy.cli, server.workers.admin, server.workers.supervisor, server.workers.worker, opentelemetry.exporter.otlp.proto.http.trace_exporter; \
import py_compile, sys; \
files = [getattr(module, '__file__', None) or '' for module in sys.modules.values()]; \
sys.pycache_prefix = None; \
[py_compile.compile(file, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH) \
    for file in files if file.startswith('/opt/venv') and file.endswith('.py')]"

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Convoy gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
# The models that it serves unless another repository is mounted over them.
COPY model_repository /models
# Inside a container all addresses are its own; publishing its ports decides who can reach them. It
# does not start without keys, unless CONVOY_ALLOW_UNAUTHENTICATED=true. ONNX Runtime would send
# telemetry to its maker.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    CONVOY_REPOSITORY=/models \
    CONVOY_HTTP_ADDRESS=0.0.0.0:8080 \
    CONVOY_GRPC_ADDRESS=0.0.0.0:8081 \
    CONVOY_METRICS_ADDRESS=0.0.0.0:8082
# The base image's library comes without bytecode, and each start would compile it again.
RUN PYTHONDONTWRITEBYTECODE="" python -c "import convoy.cli, server.workers.admin, server.workers.supervisor, server.workers.worker"
EXPOSE 8080 8081 8082
USER 10001:10001
# Ready, not only alive: a rolling update waits for it. Only Swarm restarts unhealthy containers, and
# one minute is longer than a Triton needs to restart.
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s --retries=12 CMD ["python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8082, timeout=8); c.request('GET', '/readyz'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["convoy", "serve"]
