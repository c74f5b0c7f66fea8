"""Enhance dark images and videos.

    python tools/enhance.py photos/ bright/ --checkpoint weights/lol.pth

Every image and video of the folder and its sub-folders is written to the other folder under the same name; a single
file works too. Files that cannot be enhanced are listed at the end, and the exit status is 1 then. docs/enhancement.md
says what becomes of bit depth, alpha, orientation and colour spaces.
"""

from __future__ import annotations

import argparse
import sys

from ruas_mm.apis import RUASInferencer
from ruas_mm.apis.enhanced_files import Report
from ruas_mm.apis.input_files import printable
from ruas_mm.apis.run_tool import add_debug_argument, run_tool
from ruas_mm.models.enhance.ruas import VARIANTS


def main() -> None:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        help='find the illumination on a smaller image, 0.5, 0.25, … of its side: quicker (default: as trained)',
    )
    parser.add_argument(
        '--exposure',
        type=exposure,
        metavar='auto|MEAN',
        help='how bright results become: auto, or their mean brightness, such as 0.45 (default: as it comes out)',
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
    args = parser.parse_args()

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


if __name__ == '__main__':
    run_tool(main)
