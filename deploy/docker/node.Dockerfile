# The node with the embedded engine (CPU). Build from the root of a clone:
#   docker build -f deploy/docker/node.Dockerfile -t tokenplace-node .
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY deploy/docker deploy/docker
COPY src src
RUN deploy/docker/install.sh /opt/tokenplace node

FROM python:${PYTHON_VERSION}-slim AS node
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 tokenplace \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tokenplace \
 && install --directory --owner=10001 --group=10001 --mode=0700 /state /models
# hadolint ignore=DL3064
ENV PATH=/opt/tokenplace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_STATE_HOME=/state \
    XDG_CACHE_HOME=/tmp/cache \
    TOKEN_PLACE_MODELS_DIR=/models \
    TOKEN_PLACE_STATUS_PORT=3000
COPY deploy/docker/healthy.py /opt/healthy.py
COPY --from=build /opt/tokenplace /opt/tokenplace
VOLUME ["/state", "/models"]
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=20s --timeout=5s --start-period=120s CMD ["python", "/opt/healthy.py", "http://127.0.0.1:3000/health"]
ENTRYPOINT ["tokenplace"]
CMD ["node"]
