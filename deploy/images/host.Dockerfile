# A host: what joins a head and measures, and the programs of exported pipelines; without MLflow and what learns.
#   docker buildx build --platform linux/amd64,linux/arm64 --file deploy/images/host.Dockerfile --tag pepper-host:0.1.0 .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[host,service]'

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /pepper pepper
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/pepper/cache
USER 10001:10001
WORKDIR /pepper
CMD ["python", "-m", "pepper.run", "--help"]
