# The head: every task, the service, MLflow's client and server. For amd64 and arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 --file deploy/images/head.Dockerfile --tag pepper-head:0.1.0 .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[cpu,fleet,service]' psycopg2-binary

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /pepper pepper \
    && install --directory --owner 10001 --group 10001 /pepper/fleet /pepper/service /pepper/artifacts /pepper/cache
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/pepper/cache
USER 10001:10001
WORKDIR /pepper
ENTRYPOINT ["python", "-m", "pepper.run"]
CMD ["--help"]
