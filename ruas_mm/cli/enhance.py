"""Enhance dark images and videos.

    python tools/enhance.py photos/ bright/ --checkpoint weights/lol.pth

Every image and video of the folder and its sub-folders is written to the other folder under the same name; a single
file works too. Files that cannot be enhanced are listed at the end, and the exit status is 1 then. docs/enhancement.md
says what becomes of bit depth, alpha, orientation and colour spaces.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ruas_mm.apis import RUASInferencer
from ruas_mm.apis.enhanced_files import Report
from ruas_mm.apis.input_files import printable
from ruas_mm.apis.run_tool import add_debug_argument
from ruas_mm.models.enhance.ruas import VARIANTS

_COMMAND = 'python tools/enhance.py'  # as it stands in the module's text
_EXAMPLES = """examples:
  ruas enhance night.jpg bright.jpg               # one file
  ruas enhance photos/ bright/ --compare          # a folder; also writes input and result side by side
  ruas enhance photos/ bright/ --exposure auto    # as bright as each picture should be; day pictures stay as they are
  ruas enhance video.mp4 bright/ --variant S      # without noise removal, which is faster; videos need PyAV
  ruas enhance photos/ bright/ --checkpoint work_dirs/ruas_a_unpaired/iter_1000.pth"""


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str], optional): The arguments; by default those of the process.
        prog (str, optional): The command of ``ruas`` that is called; by default the script is.

    Returns:
        argparse.Namespace: The options.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__.replace(_COMMAND, prog or _COMMAND),
        epilog=_EXAMPLES if prog else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='IN', help='image, video or folder')
    parser.add_argument('out', metavar='OUT', help='folder for the results; for a single file also the name of one')
    parser.add_argument('--checkpoint', metavar='FILE', help='weights to use (default: those of the package)')
    parser.add_argument(
        '--variant',
        choices=VARIANTS,
        help='S: no noise removal, full: always, A: where needed (default: A, or as much as the checkpoint has)',
    )
    parser.add_argument('--stages', type=int, metavar='K', help='use the first K stages (default: all)')
    parser.add_argument(
        '--resolution',
        type=float,
        metavar='SHARE',
        help='estimate the illumination on a smaller image, 0.5, 0.25, … of its side: faster (default: as trained)',
    )
    parser.add_argument(
        '--exposure',
        type=exposure,
        metavar='auto|MEAN',
        help='brightness of the results: auto, or their mean, such as 0.45 (default: no adjustment)',
    )
    parser.add_argument(
        '--strength', type=float, metavar='0…1', help='blend with the input: 0 is the input, 1 the result (default)'
    )
    parser.add_argument(
        '--brightness-gate', type=float, metavar='MEAN', help='leave images brighter than this, 0 to 1, as they are'
    )
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images of equal size to run together')
    parser.add_argument('--tile', type=int, default=768, metavar='SIDE', help='less takes less memory (default: 768)')
    parser.add_argument('--compare', action='store_true', help='write NAME.compare.SUFFIX too: input beside result')
    parser.add_argument('--save-illumination', action='store_true', help='write NAME.illumination.SUFFIX too')
    add_debug_argument(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the tool; see the module's text, and :func:`parse_args` for the arguments."""
    args = parse_args(argv, prog)
    inferencer = RUASInferencer(
        args.checkpoint,
        args.variant,
        args.device,
        args.stages,
        batch_size=args.batch_size,
        tile=args.tile,
        resolution=args.resolution,
        exposure=args.exposure,
        strength=args.strength,
        brightness_gate=args.brightness_gate,
    )
    report = Report()
    try:
        inferencer.save(args.source, args.out, args.compare, args.save_illumination, True, report)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or a request to end: what was done stays
        show(report)
        raise
    show(report)
    if report.failures:
        sys.exit(1)


def exposure(text: str) -> float | str:
    """Return ``auto`` or a number."""
    return text if text == 'auto' else float(text)


def show(report: Report) -> None:
    """Print what became of the files."""
    waiting = f', {report.waiting} not begun or not finished' if report.waiting else ''
    print(f'{len(report.written)} enhanced, {len(report.failures)} failed{waiting}.')
    if report.others:
        print(f'{report.others} other files were left out: hidden, or not named like images or videos.')
    for title, entries in (('Note', report.remarks), ('Failed', report.failures)):
        for path, reason in entries:
            print(printable(f'{title}: {path}: {reason}.'), file=sys.stderr)
