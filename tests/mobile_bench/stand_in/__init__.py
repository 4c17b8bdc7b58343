"""A stand-in Android phone for the tests, and the real adb server that speaks with it.

with StandInDevice() as phone:          # adbd's wire protocol on 127.0.0.1
    server.connect(phone)               # AdbServer: the real adb
    phone.battery_celsius = 41.0        # state is attributes
    phone.faults.add(Fault("unplug"))   # in the middle of the next run of benchmark_model
"""

from stand_in.adb_server import AdbServer
from stand_in.announced import Announced
from stand_in.commands import Answer
from stand_in.device import StandInDevice
from stand_in.faults import Fault
from stand_in.phones import MODERN, OLD, PhoneKind
from stand_in.tool_file import make_tool

__all__ = [
    "MODERN",
    "OLD",
    "AdbServer",
    "Announced",
    "Answer",
    "Fault",
    "PhoneKind",
    "StandInDevice",
    "make_tool",
]
