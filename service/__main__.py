"""`python -m service` is the `errata` command."""

from service.cli.main import app

if __name__ == "__main__":
    app(prog_name="errata")
