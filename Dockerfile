# One image for every command: serve (the default), worker, migrate …
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# with traces: docker build --build-arg REQUIREMENTS=requirements-otel.txt
ARG REQUIREMENTS=requirements.txt
COPY ${REQUIREMENTS} /tmp/requirements.txt
RUN python -m venv /venv && /venv/bin/pip install --require-hashes -r /tmp/requirements.txt \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.13-slim
# the base image brings pip, which nothing here needs
RUN python -m pip uninstall --yes pip && rm -r "$(python -c 'import ensurepip as e; print(*e.__path__)')" \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /srv --shell /usr/sbin/nologin app \
    && install -d -o app -g 0 -m 775 /srv/data \
    && install -d -o app -g app /run/secrets
COPY --from=build /venv /venv
WORKDIR /srv
COPY migrations migrations
COPY app app
# with the bytecode of what a start imports, also of the standard library: the base image has none
RUN /venv/bin/python -m compileall -q app \
    && /venv/bin/python -c "import app.bootstrap, app.cli.doctor, app.cli.maintenance, app.web.server, app.web.app, alembic.command"
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 LOG_FORMAT=json
# a number, so that Kubernetes can tell that it is not root; any other user works too, such as
# OpenShift's random ones, which are in group 0
USER 10001
VOLUME /srv/data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-m", "app.cli.healthcheck"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
