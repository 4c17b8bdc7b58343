"""adb: its server on this machine, and the shell and files of one phone."""
