"""`cohortd demo`: the main job on real data, live in the terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/demo"),
    show_default=True,
    help="Folder of the demo; an earlier demo's is replaced.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, dir_okay=False),
    default=ROOT / "tests" / "data" / "cdnow.csv",
    help="The purchase log; default: that of the checkout.",
)
@click.option(
    "--definitions",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "examples" / "cdnow",
    help="Folder of queries, audiences, jobs; default: examples/cdnow of the checkout.",
)
@click.option(
    "--live-seconds", type=click.FloatRange(15, 3600), default=60.0, show_default=True, help="Length of the live part."
)
@click.option("--exit", "exit_", is_flag=True, help="End the daemon at the end; status 0 only if all was delivered.")
@click.option("--stop", is_flag=True, help="End the daemon and the receiver that a demo has left running.")
def demo(data_dir: Path, data: Path, definitions: Path, live_seconds: float, exit_: bool, stop: bool) -> None:
    """Imports 69,659 purchases of an online shop, keeps audiences current, delivers every enter and exit.

    Starts a daemon and a webhook receiver on this host, shows what they do, and leaves them running, to be tried.
    """
    from rich.console import Console

    from daemon.demo import stage
    from daemon.demo.play import play

    console = Console()
    try:
        if stop:
            click.echo("ended" if stage.end(data_dir) else "no demo runs")
            return
        for path in (data, definitions):
            if not path.exists():
                raise click.ClickException(
                    f"{path} is not there: run this in a checkout, or give --data and --definitions"
                )
        scene, findings = play(data_dir, data, definitions, live_seconds=live_seconds, console=console)
        if exit_:
            stage.end(data_dir)
    except (stage.StageError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for finding in findings:
        click.secho(f"not as it should be: {finding}", fg="red", err=True)
    if not exit_:
        _tell(scene.address, scene.token, data_dir)
    if findings:
        raise SystemExit(1)


def _tell(address: str, token: str, folder: Path) -> None:
    from daemon.demo.stage import program

    where = f"--data-dir {folder}"
    cohortd = _command(Path(program()[0]))
    click.echo(
        f"""
The daemon goes on running.
  address  {address}
  token    {token}   (scope admin)
  log      {folder}/daemon.log

Try:
  {cohortd} audience list {where}
  {cohortd} explain regulars customer_id 00003 {where}
  curl -H "Authorization: {token}" {address}/collect/json/purchases \\
       -d '{{"customer_id": "00003", "purchased_at": "now", "cds": 2, "dollars": 25.5}}'

End it:
  {cohortd} demo --stop{f" {where}" if folder != Path("var/demo") else ""}"""
    )


def _command(path: Path) -> str:
    """How to call this program from here: by its name where that finds it, else by its path."""
    if shutil.which("cohortd") == str(path):
        return "cohortd"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
