# The relay, and with --target gateway the gateway. Build from the root of a clone:
#   docker build -f deploy/docker/relay.Dockerfile -t tokenplace-relay .
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS source
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY deploy/docker deploy/docker
COPY src src

FROM source AS build-relay
RUN deploy/docker/install.sh /opt/tokenplace relay

FROM source AS build-gateway
RUN deploy/docker/install.sh /opt/tokenplace gateway

FROM python:${PYTHON_VERSION}-slim AS base
RUN groupadd --gid 10001 tokenplace \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tokenplace
ENV PATH=/opt/tokenplace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_STATE_HOME=/state
COPY deploy/docker/healthy.py /opt/healthy.py
VOLUME /state
USER 10001:10001
STOPSIGNAL SIGTERM

FROM base AS gateway
COPY --from=build-gateway /opt/tokenplace /opt/tokenplace
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["python", "/opt/healthy.py", "http://127.0.0.1:8000/v1/health"]
ENTRYPOINT ["tokenplace"]
CMD ["gateway", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS relay
COPY --from=build-relay /opt/tokenplace /opt/tokenplace
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["python", "/opt/healthy.py", "http://127.0.0.1:5000/livez"]
ENTRYPOINT ["tokenplace"]
CMD ["relay", "--host", "0.0.0.0", "--port", "5000", "--blind"]
