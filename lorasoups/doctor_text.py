"""The doctor's report as lines for a terminal."""

from collections.abc import Mapping
from typing import Any

from lorasoups.units import duration, gb


def text(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    return "\n".join([*_machine_lines(report), "", *_profile_lines(report), "", *_verdict(report)])


def _machine_lines(report: Mapping[str, Any]) -> list[str]:
    m = report["machine"]
    flags = ", ".join(m["cpu_flags"]) or "no AVX2"
    lines = [
        f"system    {m['system']}, Python {m['python']}",
        f"CPU       {m['cpu']}, {m['cores']} cores ({m['threads']} threads used), {flags}",
    ]
    for gpu in m["gpus"]:
        bf16 = "bf16" if gpu["bf16"] else "no native bf16"
        lines.append(
            f"GPU       {gpu['name']}, {gb(gpu['memory'])} ({gb(gpu['free'])} free), "
            f"capability {gpu['capability']}, {bf16}"
        )
    if not m["gpus"]:
        lines.append("GPU       none that torch can use")
    free = f" ({gb(m['free'])} available)" if m["free"] else ""
    ram = gb(m["memory"]) + free if m["memory"] else "unknown"
    disk = gb(m["disk_free"]) if m["disk_free"] else "unknown"
    versions = " ".join(f"{name} {version}" for name, version in m["versions"].items())
    extras = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in m["extras"].items())
    hub = report["hub"]
    return [
        *lines,
        f"RAM       {ram}",
        f"disk      {disk} free where the cache lies",
        f"packages  {versions}",
        f"extras    {extras}",
        f"Hub       token {'present' if hub['token'] else 'absent'}, "
        f"{'offline mode' if hub['offline'] else 'online mode (not tried)'}",
    ]


def _profile_lines(report: Mapping[str, Any]) -> list[str]:
    p, base, data = report["profile"], report["base"], report["data"]
    size = f", {base['parameters']:,} parameters" if "parameters" in base else ""
    lora = f", LoRA {base['lora_parameters']:,}" if "lora_parameters" in base else ""
    lines = [
        f"profile   {p['name']}, {p['study']}, seeds: {p['seeds']}",
        f"base      {base['spec']} ({base['kind']}, {'here' if base['here'] else 'not here'})"
        f"{size}{lora}",
        f"data      {data['kind']}{': ' + '; '.join(data['files']) if data.get('files') else ''}",
    ]
    if not report["stages"]:
        return lines
    s = report["setup"]
    more = ", gradient checkpointing" if s["checkpointing"] else ""
    cast = ", bf16 autocast" if s["autocast"] else ""
    lines += [
        f"device    {report['device']['name']} ({s['where']}): base in {s['dtype']}{cast}, "
        f"{s['attention']} attention{more}",
        f"speed     {report['speed']['source']}",
        "",
        f"{'stage':9} {'time':>9} {'peak memory':>12}  {'largest part':24} what",
    ]
    for stage in report["stages"]:
        mark = "" if stage["fits"] else "  DOES NOT FIT"
        where = "" if stage["where"] == s["where"] else f" ({stage['where']})"
        lines.append(
            f"{stage['name']:9} {duration(stage['seconds']):>9} {gb(stage['peak_bytes']):>12}  "
            f"{stage['largest']:24} {stage['what']}{where}{mark}"
        )
    return [*lines, f"{'all':9} {duration(report['seconds']):>9}"]


def _verdict(report: Mapping[str, Any]) -> list[str]:
    name = report["profile"]["name"]
    lines = [f"note      {note}" for note in report["notes"]]
    for problem in report["problems"]:
        lines += [f"PROBLEM   {problem['what']}", f"  to do:  {problem['do']}"]
    fits = "fits this machine" if not report["problems"] else "does not fit this machine as it is"
    return [*lines, f"profile {name} {fits}"]
