"""`groundglass serve`: the web page and the REST service."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from groundglass.doors.cli.options import model_option
from groundglass.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from groundglass.doors.server.settings import Settings

_BACKLOG = 2048


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Requests judged at a time.  [default: one a core, at most 4]"
)
@click.option(
    "--operating-point",
    default="balanced",
    show_default=True,
    metavar="screen|balanced|confirm",
    help="The threshold of the model's card that gives the label.",
)
@model_option
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="A file with the token that clients must send; mode 0600, 32 bytes or more.",
)
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM with certificate and key, for TLS.")
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="A proxy in front speaks TLS; clients are counted by the last address of its X-Forwarded-For.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="A further name in the Host header. Repeatable.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Keep results (JSON, PNG) here."
)
def serve(
    host: str,
    port: int,
    workers: int | None,
    operating_point: str,
    model: str | None,
    token_file: Path | None,
    certificate: Path | None,
    behind_proxy: bool,
    allow_host: tuple[str, ...],
    keep: Path | None,
) -> None:
    """Serve the web page and the REST API, by default to this machine only.

    Another address needs --token-file, and --certificate or --behind-proxy; a proxy in front needs --token-file too.
    Nothing that is sent is stored; --keep stores results. Needs the `web` extra: pip install '.[web]' in the clone.
    """
    try:
        from groundglass.doors.server.settings import Settings, read_token
        from groundglass.read.limits import Limits

        settings = Settings(
            host=host,
            port=port,
            workers=workers or min(4, os.cpu_count() or 1),
            operating_point=operating_point,
            model=model,
            token=None if token_file is None else read_token(token_file),
            certificate=certificate,
            behind_proxy=behind_proxy,
            allowed_hosts=allow_host,
            keep=keep,
            limits=Limits.from_environment(os.environ),
        )
        if keep is not None:
            from groundglass.write import require_folder

            require_folder(keep)
        run(settings)
    except ModuleNotFoundError as error:
        if (error.name or "groundglass").startswith("groundglass"):
            raise
        raise ConfigError(
            "extra", "the web extra", f"no {error.name}", "pip install '.[web]' in the clone", about="serve"
        ) from error


def run(settings: Settings) -> None:
    """Serve until a signal comes. Raises the error of loading the model, and OutputError if the port is taken."""
    import uvicorn

    from groundglass.doors.server.app import build, logger
    from groundglass.doors.server.deadlines import protocol
    from groundglass.doors.server.service import Service

    listening = _listen(settings.host, settings.port)
    log = logger()
    service = Service(settings, log, lambda: setattr(server, "should_exit", True))
    app, bounds = build(service), settings.bounds
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol(bounds, app),
            ws="none",
            lifespan="on",
            loop="asyncio",
            access_log=False,
            log_config=None,
            log_level="critical",  # our own log has a line for each request, with allowed fields only
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=bounds.header_bytes,
            timeout_keep_alive=bounds.keep_alive_seconds,
            timeout_graceful_shutdown=bounds.stop_seconds,
            ssl_certfile=settings.certificate,
            backlog=_BACKLOG,
        )
    )
    name, port = listening.getsockname()[:2]
    scheme = "http" if settings.certificate is None else "https"
    shown = f"[{name}]" if ":" in name else name
    url = f"{scheme}://{shown}:{port}"
    click.echo(f"Groundglass on {url} (Ctrl-C stops it)", err=True)
    log.info(json.dumps({"event": "start", "port": port, "workers": settings.workers}))
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        log.info(json.dumps({"event": "stop"}))
    if service.failed is not None:
        raise service.failed


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened first, so that a taken port is reported before anything is loaded."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError("port", "an address that is free", f"{reason!r} for port {port}", "choose another") from error
    return listening
