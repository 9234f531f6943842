"""``distill analyze``: the axes of a run's latent space."""

from __future__ import annotations

from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import say_json
from distill.cli.run_options import AnalyzeArguments
from distill.latent.analysis import analyze as analyze_latent
from distill.text import counted, printable

_AXES_SHOWN = 8
_CORRELATIONS_SHOWN = 3


def analyze(arguments: AnalyzeArguments) -> int:
    """Run ``distill analyze``."""
    with ProgressView(json=arguments.json, yes=arguments.yes) as view:
        analysis = analyze_latent(
            arguments.run,
            arguments.dataset,
            cache_dir=arguments.cache_dir,
            device=arguments.device,
            seed=arguments.seed,
            progress=view.progress,
            confirm=view.confirm,
        )
    report = analysis.report
    if arguments.json:
        say_json(report)
        return 0
    active = f"{report['active_units']} of {report['latent_dim']} latent units are active"
    say(f"{counted(report['n'], 'row')} of {counted(len(report['files']), 'file')}; {active}")
    axes = zip(report["names"][:_AXES_SHOWN], report["variance_explained"], strict=False)
    for index, (name, share) in enumerate(axes):
        r = {feature: values[index] for feature, values in report["correlations"].items()}
        strongest = sorted(r, key=lambda feature: -abs(r[feature]))[:_CORRELATIONS_SHOWN]
        shown = ", ".join(f"{feature} {r[feature]:+.2f}" for feature in strongest)
        say(f"  {index + 1} {name:<18} {100 * share:5.1f} % of the variance; r with {shown}")
    say(f"{printable(str(analysis.folder))}: analysis.json, analysis.safetensors, scree.png, map.png, sweep.png")
    if arguments.dataset is not None:
        dataset = printable(str(arguments.dataset))
        say(f"distill generate --axis now uses these axes, of {dataset}; distill analyze RUN brings back the run's own")
    return 0
