"""The two kinds of phone that the stand-in can be: their properties, cores and sensors."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class PhoneKind:
    """What does not change while a phone is used.

    Attributes:
        properties: What `getprop` prints.
        core_max_khz: Maximum clock of each core.
        core_min_khz: Minimum clock of each core.
        governor: Name of the frequency governor of every core.
        zones_celsius: Type of each thermal zone and its temperature.
        memory_kb: MemTotal.
        has_thermalservice: Whether `dumpsys thermalservice` exists (Android 10 and later).
        unreadable: Files of which reading is forbidden.
        features: What the phone's adbd can do, as its banner says.
    """

    properties: dict[str, str]
    core_max_khz: tuple[int, ...]
    core_min_khz: tuple[int, ...]
    governor: str
    zones_celsius: dict[str, float]
    memory_kb: int
    has_thermalservice: bool = True
    unreadable: tuple[str, ...] = ()
    features: tuple[str, ...] = ("shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_mkdir")


# One big, three middle and four little cores; Android 14; a 32-bit ABI too.
MODERN = PhoneKind(
    properties={
        "ro.product.manufacturer": "OnePlus",
        "ro.product.brand": "OnePlus",
        "ro.product.model": "LE2113",
        "ro.product.name": "OnePlus9_EEA",
        "ro.product.device": "OnePlus9",
        "ro.product.board": "lahaina",
        "ro.board.platform": "lahaina",
        "ro.hardware": "qcom",
        "ro.soc.manufacturer": "QTI",
        "ro.soc.model": "SM8350",
        "ro.build.version.release": "14",
        "ro.build.version.sdk": "34",
        "ro.build.version.security_patch": "2024-03-05",
        "ro.build.fingerprint": (
            "OnePlus/OnePlus9_EEA/OnePlus9:14/UKQ1.230924.001/R.1608ab1:user/release-keys"
        ),
        "ro.build.type": "user",
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
        "ro.product.cpu.abilist32": "armeabi-v7a,armeabi",
        "ro.product.cpu.abilist64": "arm64-v8a",
        "sys.boot_completed": "1",
    },
    core_max_khz=(1804800,) * 4 + (2419200,) * 3 + (2841600,),
    core_min_khz=(300000,) * 4 + (710400,) * 3 + (844800,),
    governor="schedutil",
    zones_celsius={"cpu-0-0-usr": 38.2, "cpu-1-7-usr": 39.5, "skin-msm-therm-usr": 31.4},
    memory_kb=7_731_012,
)

# Two big and six little cores; Android 9: no thermal service, no ro.soc.*, guarded clocks.
OLD = PhoneKind(
    properties={
        "ro.product.manufacturer": "Google",
        "ro.product.brand": "google",
        "ro.product.model": "Pixel 3a",
        "ro.product.name": "sargo",
        "ro.product.device": "sargo",
        "ro.product.board": "sargo",
        "ro.board.platform": "sdm710",
        "ro.hardware": "sargo",
        "ro.build.version.release": "9",
        "ro.build.version.sdk": "28",
        "ro.build.version.security_patch": "2019-08-05",
        "ro.build.fingerprint": "google/sargo/sargo:9/PQ3B.190801.002/5674421:user/release-keys",
        "ro.build.type": "user",
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
        "ro.product.cpu.abilist32": "armeabi-v7a,armeabi",
        "ro.product.cpu.abilist64": "arm64-v8a",
        "sys.boot_completed": "1",
    },
    core_max_khz=(1708800,) * 6 + (1996800,) * 2,
    core_min_khz=(300000,) * 8,
    governor="interactive",
    zones_celsius={"tsens_tz_sensor0": 36.0, "battery": 29.8},
    memory_kb=3_672_188,
    has_thermalservice=False,
    unreadable=(
        "/sys/devices/system/cpu/cpu6/cpufreq/scaling_cur_freq",
        "/sys/devices/system/cpu/cpu7/cpufreq/scaling_cur_freq",
        "/sys/class/thermal/thermal_zone0/temp",
    ),
)
