"""How long units take where there is no GPU: said in a line before a run begins that would take hours."""

from pathlib import Path

from spire_ray.hubert_weights import read_config

# `jobs/benchmark.py units`, README, Speed: HuBERT-large to layer 22 in float32 on 2 cores of an AMD EPYC, RTFx 4.56.
RTFX_OF_A_CPU = 4.56 / 2
WORK = 22 * 1024**2  # of that encoder: layers times the square of their width, as its matrices grow
WORTH_SAYING_H = 1.0


def slowness(audio_s: float, cpus: float, encoder: str, layer: int) -> str | None:
    """The line for `audio_s` seconds of audio and the encoder in the folder `encoder`.

    None for under an hour, or where no CPU is up yet.
    """
    if cpus < 1:
        return None
    work = layer * read_config(Path(encoder), layer).hidden_size ** 2
    rtfx = RTFX_OF_A_CPU * cpus * WORK / work
    hours = audio_s / 3600 / rtfx
    if hours < WORTH_SAYING_H:
        return None
    return (
        f"no GPU: the units of {audio_s / 3600:,.1f} h of audio will take about {hours:,.0f} h on {cpus:g} CPUs (RTFx "
        f"{rtfx:,.1f}, from {RTFX_OF_A_CPU:.1f} a core of an AMD EPYC for HuBERT-large), text longer still"
    )
