# Two images. The last stage, the default, is the service: no torch, no compiler, no root.
# `--target train` is the training program.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PATH=/opt/sojourn/bin:$PATH

# What both builds start from. The packages are empty here, so that a change of the code does not
# install every dependency again.
FROM base AS build
RUN python -m venv /opt/sojourn
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir service training sojourn_client \
 && touch service/__init__.py training/__init__.py sojourn_client/__init__.py

FROM build AS build-service
# `serve,telemetry` has what sends traces too; docs/operations.md.
ARG EXTRAS=serve
RUN pip install -c constraints.txt ".[${EXTRAS}]"
COPY service service
COPY training training
COPY sojourn_client sojourn_client
# What installs packages is not part of what serves.
RUN pip install --no-deps --force-reinstall . && pip uninstall --yes setuptools pip

FROM build AS build-train
# On Linux the default package index gives torch with CUDA, several GB. For a much smaller image
# without it, name PyTorch's own index of CPU builds in this argument.
ARG TORCH_INDEX_URL=
RUN pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} -c constraints.txt torch \
 && pip install -c constraints.txt '.[train,lm]'
COPY service service
COPY training training
COPY sojourn_client sojourn_client
RUN pip install --no-deps --force-reinstall .

FROM base AS train
COPY --from=build-train /opt/sojourn /opt/sojourn
COPY deploy/demo.py /opt/sojourn/demo.py
# The caller says which user runs this one: the one who owns the mounted bundles.
WORKDIR /workspace
RUN mkdir bundles data runs && chmod 1777 . bundles data runs
ENV HOME=/workspace
CMD ["python", "/opt/sojourn/demo.py", "--bundle-only"]

FROM base AS service
# A volume that the collector mounts there gets the folder's owner.
RUN groupadd --system --gid 10001 sojourn \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin sojourn \
 && install -d -o 10001 -g 10001 /collected
COPY --from=build-service /opt/sojourn /opt/sojourn
USER 10001:10001
ENV SOJOURN_HOST=0.0.0.0 \
    SOJOURN_PORT=8000 \
    SOJOURN_BUNDLE=/bundles
# Without keys it will not serve at that address: give SOJOURN_KEYS_FILE, or SOJOURN_ALLOW_OPEN=true
# if whatever publishes the port decides who may call.
EXPOSE 8000
# http.client takes no proxy from the environment, which urllib would ask for localhost too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['SOJOURN_PORT']), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["sojourn-serve"]
CMD ["run"]
