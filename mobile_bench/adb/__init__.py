"""adb: its server on this machine, and the shell and files of one phone."""

FOLDER = "/data/local/tmp/mobile_bench"  # all that is ever written on a device is in here
