"""How a command line ends: an expected error is one sentence on stderr and exit status 2, never a traceback."""

import sys

import click

INTERRUPTED = 130


def run_command(cli: click.Group) -> None:
    """Run a command line."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}." if error.filename else f"{error}.")
    except ValueError as error:
        fail(str(error))


def fail(message: str) -> None:
    """End with one sentence on stderr and exit status 2."""
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(2)
