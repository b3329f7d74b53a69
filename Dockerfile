# Two stages: the first builds an environment, the second carries only what serves. No compiler, no shell tricks, not root.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY service ./service
COPY migrations ./migrations
# A CPU image by default. For CUDA, build with --build-arg TORCH=torch (or any requirement that your package index resolves).
ARG TORCH="torch==2.13.0"
RUN python -m venv /opt/errata \
    && /opt/errata/bin/pip install --no-cache-dir -c constraints.txt "${TORCH}" \
    && /opt/errata/bin/pip install --no-cache-dir -c constraints.txt ".[postgres,redis]"

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home errata && mkdir /data && chown errata /data
COPY --from=build /opt/errata /opt/errata
ENV PATH=/opt/errata/bin:$PATH OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false ERRATA_DATA_DIR=/data
USER errata
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
# Inside a container the loopback is the container's own, so the port has to be opened to its network; publish it with care:
# there are no keys yet, and whoever reaches the port can edit.
CMD ["errata", "serve", "--host", "0.0.0.0", "--allow-public-bind"]
