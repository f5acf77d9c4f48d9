"""Fleets that are drawn from published distributions, and FedScale's recorded one.

    result = fm.run(fm.fedavg(work), clients, rounds=100, fleet=fm.fleets.phones())

Every number below is marked: [source] where a publication states it, [assumed] where we chose it
within what is published, or without a source. Log-normal numbers have a median and a sigma; 90 % of
devices lie within a factor exp(1.645 sigma) of the median. Times are counted from a run's start at
midnight in the middle of its time zones.

Publications: Bonawitz et al., "Towards Federated Learning at Scale: System Design", MLSys 2019,
arXiv:1902.01046. Ignatov et al., "AI Benchmark: All About Deep Learning on Smartphones in 2019",
arXiv:1910.06663. Jangda et al., "Not So Fast: Analyzing the Performance of WebAssembly vs. Native
Code", USENIX ATC 2019. Lai et al., "FedScale", ICML 2022, arXiv:2105.11367. Liu, White, Dumais,
"Understanding Web Browsing Behaviors through Weibull Analysis of Dwell Time", SIGIR 2010. Yang et
al., "Characterizing Impacts of Heterogeneity in Federated Learning upon Large-Scale Smartphone
Data", WWW 2021, arXiv:2006.06983. 3GPP TS 36.306, release 13.
"""

from pathlib import Path

from folkmoot.core.errors import positive
from folkmoot.engines.availability import DAY_S, HOUR_S, Nightly, Sessions, Upkeep
from folkmoot.engines.devices import PHONES, Make, Spread
from folkmoot.engines.fleet import Fleet
from folkmoot.engines.traces import read_behaviour, read_capacity

__all__ = [
    "phones",
    "iot",
    "hospitals",
    "browsers",
    "fedscale",
    "Make",
    "Spread",
    "Nightly",
    "Sessions",
    "Upkeep",
]

MBIT = 1e6 / 8
GB = 1e9


def phones(
    *,
    flops: float = PHONES.flops.median,
    down_bytes_per_s: float = PHONES.down_bytes_per_s.median,
    up_bytes_per_s: float = PHONES.up_bytes_per_s.median,
    dropout: float = PHONES.dropout,
    chance: float = 0.6,
    nights: float = 0.5,
    zones: tuple[float, ...] = (-1.5, -0.5, 0.5, 1.5),
) -> Fleet:
    """Phones that train while they are charged, idle and on Wi-Fi.

    - Speed: median 4 GFLOP/s [assumed: a phone's CPU cores], sigma 0.9 [assumed], so the fastest 5
      % are 19 times as fast as the slowest 5 %: more than an order of magnitude, as between the
      chips of AI Benchmark [Ignatov 2019] and in FedScale's devices [Lai 2022].
    - Links: median 0.6 MB/s down and 0.3 MB/s up [assumed: about 5 and 2.4 Mbit/s], sigma 1.0, so
      27 times between the two ends: the order of magnitude of MobiPerf's [Lai 2022]. Latency 50 ms,
      sigma 0.5 [assumed]. Memory 1 GB, sigma 0.5 [assumed: a quarter of 4 GB].
    - Availability: 4 times as many at the peak as at the trough [Bonawitz 2019, for phones in the
      time zones of one country]: half of the phones are charged around 22:30, half at an hour of
      their own; on 60 % of the days, for 7 hours on average; four zones [assumed, so that the
      swing is 4]. 35 % are there at the peak, about 1:30, and 9 % at the trough, about 15:30. Each
      phone keeps its habit, so some are heard by day only [participant bias, Yang 2021].
    - Drop-out: 8 % of attempts, 6 to 10 % by device [Bonawitz 2019]. Theirs includes windows that
      close during an attempt; here those come on top.

    Args:
        flops: Median floating operations a second.
        down_bytes_per_s: Median of the link to the device.
        up_bytes_per_s: Median of the link from the device.
        dropout: Mean chance that an attempt is never answered, at most 0.8.
        chance: Probability that a phone is charged on a day.
        nights: Share of the phones that are charged at night.
        zones: Hours by which local clocks are ahead of the run's.
    """
    make = PHONES._replace(
        flops=PHONES.flops._replace(median=flops),
        down_bytes_per_s=PHONES.down_bytes_per_s._replace(median=down_bytes_per_s),
        up_bytes_per_s=PHONES.up_bytes_per_s._replace(median=up_bytes_per_s),
        dropout=dropout,
    )
    windows = Nightly(nights=nights, chance=chance, zones=zones)
    return Fleet(windows, (make,), name="phones")


def iot(*, flops: float = 3 * GB, wifi: float = 0.6, dropout: float = 0.05) -> Fleet:
    """Boards like a Raspberry Pi, on Wi-Fi or on LTE-M, always powered.

    - Speed: median 3 GFLOP/s, sigma 0.6 [assumed: below the 8 GFLOP/s in double precision that a
      Raspberry Pi 4 reaches in Linpack, as training sustains less than Linpack]. Memory 1 GB, sigma
      0.5 [assumed].
    - LTE-M, 40 % [assumed]: median 150 kbit/s down and 188 kbit/s up, sigma 0.35: half of the 300
      and 375 kbit/s that a half-duplex Cat-M1 modem reaches at most [3GPP release 13; the half is
      assumed]. Latency 100 ms, sigma 0.5 [assumed].
    - Wi-Fi, 60 % [assumed]: 20 Mbit/s down and 10 up, sigma 0.7, latency 10 ms, sigma 0.5
      [assumed].
    - Availability 95.8 %: one outage of 1 hour a day on average [assumed]. Drop-out 5 % [assumed].

    Args:
        flops: Median floating operations a second.
        wifi: Share of the boards on Wi-Fi; the others are on LTE-M.
        dropout: Mean chance that an attempt is never answered, at most 0.8.
    """
    board = Make(
        flops=Spread(flops, 0.6),
        down_bytes_per_s=Spread(20 * MBIT, 0.7),
        up_bytes_per_s=Spread(10 * MBIT, 0.7),
        latency_s=Spread(0.01, 0.5),
        memory_bytes=Spread(1 * GB, 0.5),
        dropout=dropout,
        share=wifi,
    )
    cellular = board._replace(
        down_bytes_per_s=Spread(0.15 * MBIT, 0.35),
        up_bytes_per_s=Spread(0.1875 * MBIT, 0.35),
        latency_s=Spread(0.1, 0.5),
        share=1 - wifi,
    )
    return Fleet(Upkeep(slot_s=DAY_S, away_s=HOUR_S), (board, cellular), name="iot")


def hospitals(*, gpus: float = 0.5, link_bytes_per_s: float = 316 * MBIT) -> Fleet:
    """Servers of hospitals, always on but for maintenance.

    - Speed: half have a GPU, 2.4 TFLOP/s [assumed: 30 % of the 8.1 TFLOP/s in float32 of an NVIDIA
      T4's data sheet] and 16 GB; half a server, 0.3 TFLOP/s and 64 GB [assumed]; sigma 0.5
      [assumed].
    - Links: median 316 Mbit/s, sigma 0.7, both ways: 5 % below 100 Mbit/s, the least that the
      United States' ONC recommends to a hospital, 5 % above 1 Gbit/s [the spread is assumed].
      Latency 10 ms, sigma 0.5 [assumed].
    - Availability 97.6 %: 4 hours of maintenance a week on average [assumed]. Drop-out 0.5 %
      [assumed].

    Args:
        gpus: Share of the hospitals with a GPU.
        link_bytes_per_s: Median of the links, both ways.
    """
    gpu = Make(
        flops=Spread(2400 * GB, 0.5),
        down_bytes_per_s=Spread(link_bytes_per_s, 0.7),
        up_bytes_per_s=Spread(link_bytes_per_s, 0.7),
        latency_s=Spread(0.01, 0.5),
        memory_bytes=Spread(16 * GB),
        dropout=0.005,
        share=gpus,
    )
    server = gpu._replace(flops=Spread(300 * GB, 0.5), memory_bytes=Spread(64 * GB), share=1 - gpus)
    return Fleet(Upkeep(slot_s=7 * DAY_S, away_s=4 * HOUR_S), (gpu, server), name="hospitals")


def browsers(
    *, flops: float = 10 * GB, slowdown: float = 1.5, median_s: float = 300.0, dropout: float = 0.1
) -> Fleet:
    """Web pages that train in WebAssembly while they are open.

    - Speed: median 10 GFLOP/s natively, sigma 0.8 [assumed], divided by 1.5: WebAssembly is slower
      by 45 % in Firefox and 55 % in Chrome [Jangda 2019]. Memory 2 GB [assumed: half of what 32-bit
      WebAssembly can address].
    - Links: median 25 Mbit/s down and 3 up [the FCC's measure of broadband from 2015], sigma 0.8
      [assumed]. Latency 20 ms, sigma 0.5 [assumed].
    - Availability 1.9 %: in every 4 hours, a session with probability 0.5 [assumed]. Durations are
      Weibull with median 5 minutes [assumed] and shape 0.8: below 1, as who has stayed for long
      stays longer [Liu 2010; 0.8 is assumed]. The mean is 9 minutes. Day and night are alike.
    - Drop-out 10 % [assumed], beside pages that are closed.

    Args:
        flops: Median floating operations a second of native code.
        slowdown: What WebAssembly divides it by, at least 1.
        median_s: Median duration of a session.
        dropout: Mean chance that an attempt is never answered, at most 0.8.
    """
    positive(flops=flops, slowdown=slowdown)
    make = Make(
        flops=Spread(flops / slowdown, 0.8),
        down_bytes_per_s=Spread(25 * MBIT, 0.8),
        up_bytes_per_s=Spread(3 * MBIT, 0.8),
        latency_s=Spread(0.02, 0.5),
        memory_bytes=Spread(2 * GB),
        dropout=dropout,
    )
    return Fleet(Sessions(median_s=median_s), (make,), name="browsers")


def fedscale(
    behaviour: str | Path, capacity: str | Path, *, reference_flops: float | None = None
) -> Fleet:
    """FedScale's recorded phones: when they were there, and how fast they and their links are.

    Theirs are pickles, which run what is in them, so they are not read here. Export them once,
    where you trust the file:

        import json, pickle
        json.dump(pickle.load(open("client_behave_trace", "rb")), open("behaviour.json", "w"))

    and `client_device_capacity` into "capacity.json" likewise.

    Args:
        behaviour: JSON by client: `active`, `inactive` and `finish_time` in seconds.
        capacity: JSON by client: `computation`, the milliseconds of inference for one example, and
            `communication` in kilobits a second. Training takes 3 times inference, as theirs.
        reference_flops: Floating operations that training takes for one example of the model that
            `computation` was measured on; None takes the speed for every model's.

    Raises:
        DataError: If a file cannot be used; the sentence names the client.
    """
    windows, devices = read_behaviour(behaviour), read_capacity(capacity, reference_flops)
    return Fleet(windows, devices, name="fedscale")
