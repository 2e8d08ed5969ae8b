# A Prometheus for machines that reach no image registry: Debian's, laid out as the official image.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o nobody -g nogroup /prometheus \
    && rm -rf /etc/prometheus
VOLUME /prometheus
USER 65534:65534
ENTRYPOINT ["prometheus"]
