"""Path -> Scan: every file format, read in a child process of bounded memory and time. `scan.read` is the way in."""
