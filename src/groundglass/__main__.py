"""`python -m groundglass` is the command `groundglass`."""

from groundglass.doors.cli.main import main

if __name__ == "__main__":
    main()
