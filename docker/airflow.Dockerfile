# syntax is left to the engine: with BuildKit's own, nothing is fetched but the images named here.
# The Airflow of docker-compose.airflow.yml: exactly what uv.lock and docker/stack.txt name, so what the tests have tested.
#
#   AIRFLOW_BASE   any Debian with Python 3.11 and its venv
#   DOCKER_CLI     an image with the docker client and its BuildKit plug-in, from which those are copied
#   CA_BUNDLE      (build secret `ca`) roots to trust while packages are fetched, never in a layer
ARG AIRFLOW_BASE=python:3.11.14-slim-bookworm
ARG DOCKER_CLI=docker:28.5.1-cli

FROM ${DOCKER_CLI} AS docker-cli

FROM ${AIRFLOW_BASE} AS build
USER root
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_CACHE_DIR=/var/cache/uv UV_PROJECT_ENVIRONMENT=/opt/mlpacker/.venv
RUN rm -rf /opt/mlpacker && python3 -m venv /opt/uv
COPY docker/uv.txt /tmp/uv.txt
RUN --mount=type=secret,id=ca --mount=type=cache,target=/var/cache/uv,sharing=locked \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi; \
    /opt/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r /tmp/uv.txt
WORKDIR /opt/mlpacker
COPY pyproject.toml uv.lock docker/stack.txt ./
RUN --mount=type=secret,id=ca --mount=type=cache,target=/var/cache/uv,sharing=locked \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    /opt/uv/bin/uv sync --quiet --frozen --no-dev --no-install-project --extra demo \
    && /opt/uv/bin/uv pip install --quiet --python .venv --require-hashes --no-deps -r stack.txt

FROM ${AIRFLOW_BASE}
USER root
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends git ca-certificates >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && { id airflow >/dev/null 2>&1 || useradd --uid 50000 --gid 0 --create-home --shell /usr/sbin/nologin airflow; } \
    && install -d -o 50000 -g 0 -m 0750 /opt/airflow /var/lib/mlpacker /var/lib/dag-bundles /var/log/airflow
COPY --from=docker-cli /usr/local/bin/docker /usr/bin/docker
COPY --from=docker-cli /usr/local/libexec/docker/cli-plugins /usr/local/libexec/docker/cli-plugins
COPY --from=build /opt/mlpacker/.venv /opt/mlpacker/.venv
WORKDIR /opt/mlpacker
COPY packer_lib packer_lib
COPY padl_schemas padl_schemas
COPY plugins plugins
COPY dags dags
COPY pyproject.toml uv.lock ./
COPY docker/health.py docker/make_secrets.py docker/feed.py docker/
COPY --chmod=755 docker/mlpacker docker/entrypoint /usr/local/bin/
ENV PATH=/opt/mlpacker/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/mlpacker PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    AIRFLOW_HOME=/opt/airflow HOME=/home/airflow
USER 50000:0
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["airflow", "version"]
