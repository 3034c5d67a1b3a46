# syntax=docker/dockerfile:1
# The gateway as one image: wheels only, checked against the lock's hashes; a fixed uid; nothing is written to its root.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/posthouse
COPY requirements.lock ./
RUN /opt/posthouse/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-input \
      --only-binary :all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY providers providers
COPY subscriptions subscriptions
COPY migrations migrations
# Our own package: the few packages that build it stay out of the image, and come from the lock too.
COPY tests/requirements.lock build.lock
RUN awk '/^[a-z]/ {keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/} keep' build.lock > /tmp/build.lock \
 && python -m venv /tmp/build \
 && /tmp/build/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-input \
      --only-binary :all: --require-hashes -r /tmp/build.lock \
 && /tmp/build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /tmp/wheel . \
 && /opt/posthouse/bin/python -m pip install --no-cache-dir --no-deps --no-index /tmp/wheel/*.whl \
 && /opt/posthouse/bin/python -m compileall -q /opt/posthouse/lib

FROM python:3.13-slim
# A passwd entry, because PostgreSQL (of `posthouse up`) wants one; any other uid works for `serve`.
RUN groupadd --gid 10001 posthouse \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/posthouse --create-home --shell /usr/sbin/nologin posthouse
COPY --from=build /opt/posthouse /opt/posthouse
ENV PATH=/opt/posthouse/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    POSTHOUSE_HOME=/var/lib/posthouse \
    POSTHOUSE_PUBLIC_LISTEN=0.0.0.0:8080 \
    POSTHOUSE_PRIVATE_LISTEN=0.0.0.0:8081
WORKDIR /var/lib/posthouse
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["posthouse"]
CMD ["serve"]
