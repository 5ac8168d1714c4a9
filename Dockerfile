# The web page and the REST service, with DICOM results, as a user without rights and with a root that can be read only.
#   docker build -t groundglass .
#   (umask 077; openssl rand -hex 32 > token); chown 10001 token       # the token is for whoever is let in
#   docker run --rm --read-only --tmpfs /tmp:mode=1777,size=3g --cap-drop ALL --security-opt no-new-privileges \
#     --memory 7g --pids-limit 256 -v "$PWD/token:/run/token:ro" -p 127.0.0.1:8000:8000 \
#     groundglass --allow-host ct.example
# Of the memory, 3g are for uploads: what lies in a tmpfs counts. A proxy that speaks TLS stands in front and serves it as
# ct.example: deploy/nginx.conf. Let nothing else reach the port: the proxy says which client asks.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/groundglass && /opt/groundglass/bin/pip install --no-cache-dir -c constraints.txt '.[web,dicom]'

FROM python:3.12-slim
COPY --from=build /opt/groundglass /opt/groundglass
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin groundglass
ENV PATH=/opt/groundglass/bin:$PATH PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=5 HOME=/tmp
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "-c", \
  "import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:8000/health/ready'), timeout=4)"]
ENTRYPOINT ["groundglass", "serve", "--host", "0.0.0.0", "--behind-proxy", "--token-file", "/run/token"]
