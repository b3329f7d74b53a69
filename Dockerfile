# Two stages: the first builds an environment, the second carries only what serves. No compiler, no shell tricks, not root.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY service ./service
# A CPU image by default: where this index has a build of the same version, pip prefers it to PyPI's, which on Linux is the CUDA
# build of several gigabytes. For a GPU: --build-arg TORCH_INDEX=https://pypi.org/simple, or the index of your CUDA's wheels.
ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX="https://download.pytorch.org/whl/cpu"
RUN python -m venv /opt/errata \
    && /opt/errata/bin/pip install --no-cache-dir -c constraints.txt --extra-index-url "${TORCH_INDEX}" "${TORCH}" \
    && /opt/errata/bin/pip install --no-cache-dir -c constraints.txt ".[postgres,redis]"

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home errata && mkdir /data && chown errata /data
COPY --from=build /opt/errata /opt/errata
ENV PATH=/opt/errata/bin:$PATH HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false ERRATA_DATA_DIR=/data
# A published port is reached by these names. Whoever reaches it by another one names that one too, or gets a 400.
ENV ERRATA_ALLOWED_HOSTS=localhost,127.0.0.1
# No container engine restarts what is merely unhealthy, so a server whose event loop does not turn for a minute ends itself.
ENV ERRATA_FROZEN_S=60
USER errata
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
# Inside a container the loopback is the container's own, so the port has to be opened to its network; publish it with care
# (-p 127.0.0.1:8000:8000): there are no keys yet, and whoever reaches the port can edit.
CMD ["errata", "serve", "--host", "0.0.0.0", "--allow-public-bind"]
