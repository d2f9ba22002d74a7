# syntax=docker/dockerfile:1
# blip2 for processors: coordinators, workers without cards, everything else. `docker build -t blip2 .`
#
# Bases are pinned by version. A digest pins the bytes as well; it is a registry's, so whoever builds names it:
#   docker build --build-arg RUST=rust@sha256:… --build-arg DEBIAN=debian@sha256:… .
ARG RUST=rust:1.95.0-bookworm
ARG DEBIAN=debian:12.12-slim

FROM ${RUST} AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked -p blip2 \
    && install -D target/dist/blip2 /out/blip2

FROM ${DEBIAN}
# Of the base the processes need the C library alone; the authorities are for object stores over https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out /opt/blip2
COPY configs /opt/blip2/configs
COPY LICENSE-APACHE LICENSE-MIT /opt/blip2/
ENV PATH=/opt/blip2:$PATH
WORKDIR /opt/blip2
# What the manifests of k8s/ run as: nobody, who has a place to write nowhere but on volumes.
USER 10001:10001
ENTRYPOINT ["blip2"]
