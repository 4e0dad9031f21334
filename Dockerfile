# Builds with BuildKit: docker build --tag chappe .

ARG RUST=1.90
ARG DEBIAN=trixie

FROM rust:${RUST}-slim-${DEBIAN} AS build
# librdkafka is built by its own configure and make, with the system's OpenSSL and zlib. cmake is for
# aws-lc where it has no prepared build.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake libssl-dev perl pkg-config python3 zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive a build; the binaries are copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --profile dist --bin chappe --bin chappe-load \
    && install -D --target-directory=/out target/dist/chappe target/dist/chappe-load

FROM debian:${DEBIAN}-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3t64 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=65532 --group=65532 --mode=0750 /var/lib/chappe
COPY --from=build /out/ /usr/local/bin/
ENV CHAPPE_DATA=/var/lib/chappe
# By number: Kubernetes can tell that it is not root.
USER 65532:65532
VOLUME /var/lib/chappe
# HTTP and WebSocket, QUIC, health and metrics, uplink.
EXPOSE 7400/tcp 7400/udp 7401/tcp 7402/tcp
# Kubernetes asks /livez and /readyz itself.
HEALTHCHECK NONE
# SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/chappe"]
CMD ["serve"]
