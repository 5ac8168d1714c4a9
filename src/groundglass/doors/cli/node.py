"""`groundglass node`: a DICOM node that answers what is sent to it, back into the same study."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import click

from groundglass.doors.cli.options import keep_option, model_option, quiet_time_option, store_option, threads_option
from groundglass.errors import ConfigError, RemoteError
from groundglass.report.words import RESEARCH_USE_ONLY

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Seconds between two looks at the worklist, and between two clean-ups.
_LOOK, _CLEAN = 0.5, 600.0


_store_option = store_option("node", "node")


@click.group(invoke_without_command=True)
@click.option("--aet", default="GROUNDGLASS", show_default=True, help="Our AE title.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(1, 65535), default=11112, show_default=True)
@click.option("--send-to", metavar="AET@HOST:PORT", help="Where results go; this peer may also send to us.")
@click.option("--peer", "peers", multiple=True, metavar="AET@HOST", help="A further peer that may send; repeatable.")
@quiet_time_option("a study")
@keep_option
@click.option(
    "--trusted-network",
    is_flag=True,
    help="Needed beside a --host other than this machine: DICOM is not encrypted, whoever is on that network reads it.",
)
@model_option
@threads_option
@_store_option
@click.pass_context
def node(ctx: click.Context, /, **given: Any) -> None:
    """Receive CT by C-STORE, answer when a study is complete, and send report and pictures back.

    Runs until it is stopped. Only the peer of --send-to and those of --peer may send, each from its own address; only
    CT images are accepted. Results wait on disk until they are delivered. Needs the `dicom` extra: pip install
    '.[dicom]' in the clone.
    """
    if ctx.invoked_subcommand is None:
        _run(**given)


def _run(
    *,
    aet: str,
    host: str,
    port: int,
    send_to: str | None,
    peers: tuple[str, ...],
    quiet_time: float,
    keep: float,
    trusted_network: bool,
    model: str | None,
    threads: int | None,
    store: Path,
) -> None:
    try:
        from groundglass.remote.dimse import Peer, Receiver, sender
        from groundglass.report.dicom import require_highdicom

        require_highdicom()
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the dicom extra", f"no {error.name}", "pip install '.[dicom]' in the clone", about="node"
        ) from error
    from groundglass.infer.model import load
    from groundglass.read.isolate import Decoder
    from groundglass.read.limits import Limits
    from groundglass.remote.inbox import Inbox
    from groundglass.remote.service import Circuit, Service
    from groundglass.remote.worklist import Worklist

    if send_to is None:
        raise click.UsageError("--send-to AET@HOST:PORT says where results go")
    if host not in _LOOPBACK and not trusted_network:
        raise ConfigError(
            "open_network",
            "--host of this machine",
            host,
            "say --trusted-network where only trusted machines reach it",
        )
    if not 1 <= len(aet.strip()) <= 16:
        raise ConfigError("aet", "1 to 16 characters", repr(aet), "correct it", about="--aet")
    target, known = Peer.parse(send_to), [Peer.parse(peer) for peer in peers]
    if target.port is None:
        raise ConfigError("peer", "--send-to AET@HOST:PORT", f"no port in {send_to!r}", "add it")

    limits = Limits.from_environment(os.environ)
    with Worklist(store, time.time) as worklist, Decoder(limits) as incoming, Decoder(limits) as reading:
        loaded = load(model, threads)
        deliver = sender(target, aet, worklist.sending, worklist.waiting)
        service = Service(worklist, loaded, reading, deliver, Circuit(time.monotonic, random.Random()))
        with Receiver(Inbox(worklist, incoming), aet, host, port, [target, *known]):
            click.echo(f"{aet} listens at {host}:{port}; results go to {send_to}. {RESEARCH_USE_ONLY}", err=True)
            cleaned = -_CLEAN
            while True:
                for line in (*service.answer(quiet_time), *service.deliver()):
                    click.echo(line, err=True)
                if time.monotonic() - cleaned > _CLEAN:
                    cleaned = time.monotonic()
                    worklist.purge(keep * 3600)
                time.sleep(_LOOK)


@node.command(short_help="What was received, answered and delivered, and why not.")
@_store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--echo", metavar="AET@HOST:PORT", help="Also ask this peer for a C-ECHO, and fail where it gives none.")
@click.option("--aet", default="GROUNDGLASS", show_default=True, help="Our AE title for --echo.")
def status(store: Path, as_json: bool, echo: str | None, aet: str) -> None:
    """Counts of what a node received, answered and delivered, with reasons for the rest, and without names."""
    from groundglass.remote.worklist import Worklist, holder

    if echo is not None and not _has_run(store):
        _echo(echo, aet)  # whether the archive answers may be asked before the node is started
        return
    _require_store(store)
    with Worklist(store, time.time, exclusive=False) as worklist:
        counts, reasons = worklist.counts(), worklist.reasons()
    running = holder(store)
    if as_json:
        listed = [{"code": code, "detail": detail, "count": count} for code, detail, count in reasons]
        click.echo(json.dumps({"process": running, **counts, "reasons": listed}))
    else:
        click.echo("not running" if running is None else f"running as process {running}")
        for name, count in counts.items():
            click.echo(f"{name.replace('_', ' '):20} {count}")
        for code, detail, count in reasons:
            click.echo(f"{count} x {code}: {detail}")
    if echo is not None:
        _echo(echo, aet)


@node.command(short_help="Offer results again that the destination refused.")
@_store_option
def retry(store: Path) -> None:
    """Send again what the destination refused. A running node or watch does so at once."""
    from groundglass.remote.worklist import Worklist

    _require_store(store)
    with Worklist(store, time.time, exclusive=False) as worklist:
        click.echo(f"{worklist.retry()} results queued again")


def _has_run(store: Path) -> bool:
    return (store / "worklist.sqlite").is_file()


def _require_store(store: Path) -> None:
    if not _has_run(store):
        raise ConfigError(
            "store", "the folder of a node", "one without a worklist", "start the node first", about="--store"
        )


def _echo(text: str, aet: str) -> None:
    from groundglass.remote import dimse

    peer = dimse.Peer.parse(text)
    if peer.port is None or not dimse.echo(peer, aet):
        raise RemoteError("pacs", f"an answer to C-ECHO from {text}", "none", "check AE titles, address and port there")
    click.echo(f"{text} answers")
