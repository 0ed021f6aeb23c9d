# The service, and the jobs beside it: docker build -t recsys .
# The default index has torch with its GPU libraries; an index of CPU wheels makes an image a third
# of that size: docker build --build-arg TORCH_INDEX=<its URL> -t recsys .
FROM python:3.11-slim AS build

ARG TORCH_INDEX=""
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/recsys
COPY requirements/base.txt requirements/
RUN /opt/recsys/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements/base.txt)" \
    && /opt/recsys/bin/pip install -r requirements/base.txt
COPY pyproject.toml README.md LICENSE ./
COPY features features
COPY recsys recsys
COPY serving serving
RUN /opt/recsys/bin/pip install "setuptools>=77" \
    && /opt/recsys/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim

# LightGBM needs OpenMP.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin recsys \
    && install --directory --owner recsys /srv/recsys /srv/recsys/artifacts
COPY --from=build /opt/recsys /opt/recsys

ENV PATH=/opt/recsys/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# recsys.toml and the data it names are mounted here, the bundles at its [output] directory.
WORKDIR /srv/recsys
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/ready', timeout=2)"]
ENTRYPOINT ["recsys"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--log-format", "json"]
