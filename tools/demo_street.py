"""Street scenes for tools/make_demo_data.py: planes and flat objects in metres, seen from a car, drawn back to front.

X is to the right of the camera, Y up from the road and Z ahead, all in metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

ROAD, SIDEWALK, BUILDING, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN = 0, 1, 2, 5, 6, 7
VEGETATION, TERRAIN, SKY, PERSON, CAR, IGNORED = 8, 9, 10, 11, 13, 255  # Cityscapes' train ids

FAR = 110.0  # length of the street in metres
FINE = 4  # sub-pixel resolution of the edges
RED, AMBER, GREEN, WARM, WHITE = np.array(  # BGR
    [(0.1, 0.1, 1), (0.1, 0.65, 1), (0.55, 1, 0.2), (0.55, 0.8, 1), (1, 1, 1)], np.float32
)

Texture = Callable[[str, np.random.Generator], np.ndarray]
Face = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Street:
    """A street scene before it is darkened.

    Args:
        image (np.ndarray): The street in daylight; float32, H×W×3, BGR, sRGB encoded, in [0, 1].
        lights (np.ndarray): Visible light sources (lamps and windows), in the format of ``image``; 0 elsewhere.
        labels (np.ndarray): Cityscapes' train ids, uint8, H×W; 255 for pixels without a class.
    """

    image: np.ndarray
    lights: np.ndarray
    labels: np.ndarray


def make_street(size: tuple[int, int], rng: np.random.Generator, texture: Texture, face: Face) -> Street:
    """Compose one street scene.

    Args:
        size (tuple[int, int]): Width and height in pixels.
        rng (np.random.Generator): Source of all random numbers.
        texture (Callable): Returns a texture (float32, H×W×3, BGR, with a mean of about 1) for ``ground``, ``wall``,
            ``leaves``, ``cloth`` or ``sky``.
        face (Callable): Returns the picture of a face, float32, square, BGR, in [0, 1].

    Returns:
        Street: The street and its labels.
    """
    return _Painter(size, rng, texture, face).paint()


def _colour(rng: np.random.Generator, low: float, high: float, colourful: float = 0.1) -> np.ndarray:
    """Return a colour with a random brightness and saturation."""
    return np.clip(rng.uniform(low, high) * (1 + colourful * rng.standard_normal(3)), 0.01, 1).astype(np.float32)


def _disc(radius: float, rng: np.random.Generator | None = None, corners: int = 24) -> np.ndarray:
    """A regular polygon of N corners around (0, 0) that lies on an edge, N×2; a ragged one with a generator."""
    angle = 2 * np.pi * (np.arange(corners) + 0.5) / corners - np.pi / 2
    reach = radius if rng is None else radius * rng.uniform(0.8, 1.15, corners)
    return np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)


def _box(left: float, right: float, bottom: float, top: float) -> np.ndarray:
    """Corners of a rectangle, 4×2, the top left one first as textures are laid out."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _limb(start: tuple[float, float], end: tuple[float, float], thick: float, thin: float) -> np.ndarray:
    """A rounded bar from one point to another, N×2."""
    turn = np.arctan2(end[1] - start[1], end[0] - start[0]) + np.linspace(-np.pi / 2, np.pi / 2, 6)
    cap = np.stack([np.cos(turn), np.sin(turn)], axis=1) / 2
    return np.concatenate([end + thin * cap, start - thick * cap])


def _lay(picture: np.ndarray, corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Warp a picture so that its corners come to lie on four others; a mere colour stays one."""
    if picture.ndim == 1:
        return picture
    full = picture.shape[1::-1]
    fit = np.minimum(np.ptp(corners, axis=0) + 2, full).astype(int)
    if (fit < full).any():  # or it would alias
        picture = cv2.resize(picture, fit.tolist(), interpolation=cv2.INTER_AREA)
    own = _box(0, fit[0], fit[1], 0)
    matrix = cv2.getPerspectiveTransform(own.astype(np.float32), corners.astype(np.float32))
    return cv2.warpPerspective(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


class _Painter:
    def __init__(self, size: tuple[int, int], rng: np.random.Generator, texture: Texture, face: Face) -> None:
        self.width, self.height = size
        self.rng, self.texture, self.face = rng, texture, face
        self.image = np.zeros((self.height, self.width, 3), np.float32)
        self.lights = np.zeros_like(self.image)
        self.labels = np.full((self.height, self.width), IGNORED, np.uint8)
        self.focal = rng.uniform(0.8, 1.05) * min(self.width, self.height * 4 / 3)
        self.eye = rng.uniform(1.4, 1.9)  # metres above the road
        self.vanishing = np.array([rng.uniform(0.4, 0.6) * self.width, rng.uniform(0.42, 0.52) * self.height])

    def paint(self) -> Street:
        rng = self.rng
        road = -rng.uniform(3.5, 7), rng.uniform(1.8, 4)
        walk, lawn = rng.uniform(2, 5, 2), rng.uniform(0.5, 4, 2) * (rng.random(2) < 0.6)
        walls = road[0] - walk[0] - lawn[0], road[1] + walk[1] + lawn[1]
        self.sky()
        self.ground(-2 * FAR, 2 * FAR, TERRAIN)
        for side, sign in enumerate((-1, 1)):
            self.ground(road[side], walls[side], TERRAIN)
            if rng.random() < 0.6:
                self.ground(road[side], road[side] + sign * walk[side], SIDEWALK)
                self.kerb(road[side])
            else:  # beyond the lawn
                self.ground(walls[side] - sign * walk[side], walls[side], SIDEWALK)
        self.ground(*road, ROAD)
        self.markings(*road)
        self.skyline()
        for wall, sign in zip(walls, (-1, 1), strict=True):
            self.row_of_houses(wall, sign)
        for depth, draw in sorted(self.things(road, walls), key=lambda thing: -thing[0]):
            draw(depth)
        if rng.random() < 0.5:
            self.bonnet()
        return Street(self.image.clip(0, 1), self.lights.clip(0, 1), self.labels)

    # --- geometry ---------------------------------------------------------------------------------------------------

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels of points in metres, N×3."""
        x, y, z = np.asarray(points, float).T
        return self.vanishing + self.focal * np.stack([x, self.eye - y], axis=1) / z[:, None]

    def upright(self, x: float, z: float, figure: np.ndarray) -> np.ndarray:
        """Pixels of a flat figure (N×2, metres) that faces the camera and stands at (x, 0, z)."""
        return self.project(np.column_stack([figure + (x, 0), np.full(len(figure), z)]))

    def fill(self, outline: np.ndarray, surface: np.ndarray, label: int, light: np.ndarray | None = None) -> None:
        """Fill an outline (N×2, pixels) with a colour (3) or a picture, which may shine, and label it.

        The corners of the picture come to lie on the outline's if it has four, else on those of its bounding box.
        """
        size = self.width, self.height
        low = np.clip(np.floor(outline.min(axis=0)), 0, size).astype(int)
        width, height = (np.clip(np.ceil(outline.max(axis=0)), 0, size).astype(int) - low).tolist()
        if width < 1 or height < 1:
            return
        fine = np.zeros((height * FINE, width * FINE), np.uint8)
        points = np.round(((outline - low) * FINE - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(fine, [points], 255, shift=4)
        covered = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if len(outline) != 4:
            (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
            outline = _box(left, right, bottom, top)
        window = np.s_[low[1] : low[1] + height, low[0] : low[0] + width]
        self.labels[window][covered >= 0.5] = label
        covered = covered[..., None]
        for plane, picture in ((self.image, surface), (self.lights, light)):
            if picture is None:
                plane[window] *= 1 - covered
            else:
                plane[window] += covered * (_lay(picture, outline - low, width, height) - plane[window])

    # --- what does not stand on the street --------------------------------------------------------------------------

    def sky(self) -> None:
        rng = self.rng
        clouds = cv2.GaussianBlur(self.texture('sky', rng), (0, 0), 4)
        fade = np.linspace(rng.uniform(0.4, 1), 1, len(clouds), dtype=np.float32)[:, None, None]
        sky = clouds * fade * _colour(rng, 0.08, 0.45, 0.2)
        self.fill(_box(0, self.width, self.vanishing[1] + 2, 0), sky, SKY)

    def flat(self, left: float, right: float, near: float, far: float, surface: np.ndarray, label: int = ROAD) -> None:
        """A rectangle that lies on the ground."""
        self.fill(self.project([(left, 0, far), (right, 0, far), (right, 0, near), (left, 0, near)]), surface, label)

    def ground(self, start: float, stop: float, label: int) -> None:
        """A strip along the street, in pieces that get longer with the distance, as they need less detail."""
        rng = self.rng
        left, right = sorted((start, stop))
        look = {ROAD: (0.15, 0.45, 0.05), SIDEWALK: (0.25, 0.65, 0.08), TERRAIN: (0.15, 0.45, 0.2)}[label]
        surface = self.texture('leaves' if label == TERRAIN else 'ground', rng) * _colour(rng, *look)
        if label == SIDEWALK:  # slabs
            slab = len(surface) // rng.integers(2, 6)
            surface[::slab] *= 0.6
            surface[:, ::slab] *= 0.6
        tile = 3.0  # metres
        surface = np.hstack([surface, surface[:, ::-1]] * min(round((right - left) / tile / 2) or 1, 6))
        nearest = 0.8 * self.focal * self.eye / (self.height - self.vanishing[1])
        depths = [nearest]
        while depths[-1] < FAR:
            depths.append(min(depths[-1] + max(tile, 0.5 * depths[-1]), FAR))
        for i in reversed(range(len(depths) - 1)):  # mirrored in turn and overlapping a little, to hide the seams
            self.flat(left, right, depths[i], 1.02 * depths[i + 1], surface[:: (-1) ** i], label)

    def kerb(self, x: float) -> None:
        stone = _colour(self.rng, 0.4, 0.7, 0.05)
        self.flat(x - 0.1, x + 0.1, 1, FAR, stone, SIDEWALK)

    def markings(self, left: float, right: float) -> None:
        rng = self.rng
        paint = _colour(rng, 0.5, 0.85, 0.04)
        phase = rng.uniform(2, 11)
        for lane in np.arange(-1.7, left + 1, -3.4):
            for z in np.arange(phase, 60, 9):
                self.flat(lane - 0.07, lane + 0.07, z, z + 4, paint)
        if rng.random() < 0.5:
            for edge in (left + 0.3, right - 0.3):
                self.flat(edge - 0.07, edge + 0.07, 1, 60, paint)
        if rng.random() < 0.35:  # a crossing
            z = rng.uniform(5, 14)
            for x in np.arange(left + 0.4, right - 0.4, 1):
                self.flat(x, x + 0.5, z, z + 3, paint)

    def skyline(self) -> None:
        """What closes the street at its end."""
        rng = self.rng
        reach = 0.7 * FAR * self.width / self.focal
        x = -reach
        while x < reach:
            wide = rng.uniform(6, 25)
            if rng.random() < 0.6:
                self.wall((x, FAR), (x + wide, FAR), rng.uniform(5, 24), rng, detail=3)
            else:
                self.crown(x + wide / 2, FAR, rng.uniform(1, 5), rng.uniform(3, 7), wide / 2)
            x += wide

    def row_of_houses(self, wall: float, sign: int) -> None:
        rng = self.rng
        z, houses = rng.uniform(3, 12), []
        while z < 0.8 * FAR:
            length = rng.uniform(7, 20)
            houses.append((z, z + length, rng.random() < 0.8))
            z += length + (rng.uniform(1, 6) if rng.random() < 0.3 else 0)
        for near, far, built in reversed(houses):
            if built:
                tall, style, shade = rng.uniform(4.5, 17), rng.integers(2**32), rng.uniform(0.6, 1)
                front = sorted([(wall, near), (wall + sign * rng.uniform(8, 14), near)])
                flank = [(wall, near), (wall, far)][::-sign]
                self.wall(*front, tall, np.random.default_rng(style), shade=shade)
                self.wall(*flank, tall, np.random.default_rng(style))
            else:
                for z in np.linspace(far, near, 3):
                    self.crown(wall + sign * rng.uniform(2, 5), z, rng.uniform(1.5, 4), rng.uniform(1.5, 3.5), 3)

    def wall(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        tall: float,
        rng: np.random.Generator,
        detail: int = 10,
        shade: float = 1,
    ) -> None:
        """A house's wall from one (x, z) to another in the style of a generator, with so many pixels to a metre."""
        long = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        columns, rows = int(long * detail), int(tall * detail)
        wall = cv2.resize(self.texture('wall', rng), (columns, rows)) * shade * _colour(rng, 0.15, 0.65, 0.15)
        light = np.zeros_like(wall)
        frame, pane = _colour(rng, 0.1, 0.8), _colour(rng, 0.03, 0.25, 0.2)
        step, storey = rng.uniform(1.8, 3.2), rng.uniform(2.7, 3.5)
        wide, high = rng.uniform(0.4, 0.65) * step, rng.uniform(0.4, 0.65) * storey
        lit = rng.uniform(0, 0.3)
        for bottom in np.arange(0.8, tall - high - 0.3, storey):
            shop = bottom < 1 and rng.random() < 0.3
            for left in np.arange(0.5, long - wide, step):
                y, x, h = round(rows - (bottom + high) * detail), round(left * detail), round(high * detail)
                w = round((0.9 * step if shop else wide) * detail)
                wall[y - 1 : y + h + 1, x - 1 : x + w + 1] = frame
                wall[y : y + h, x : x + w] = pane * rng.uniform(0.6, 1.4)
                if rng.random() < (0.6 if shop else lit):
                    light[y : y + h, x : x + w] = WARM * rng.uniform(0.15, 0.8)
                if not shop:  # a window bar
                    wall[y : y + h, x + w // 2 : x + w // 2 + 1] = frame
                    light[y : y + h, x + w // 2 : x + w // 2 + 1] = 0
        (x, z), (u, w) = start, end
        corners = [(x, tall, z), (u, tall, w), (u, 0, w), (x, 0, z)]
        self.fill(self.project(corners), wall, BUILDING, light)

    def bonnet(self) -> None:
        """The car that the camera is in, which nobody labels."""
        rng = self.rng
        x, y = np.linspace(-0.1, 1.1, 20), rng.uniform(0.88, 0.95)
        rise = y + (x - rng.uniform(0.4, 0.6)) ** 2 * rng.uniform(0.2, 0.5)
        outline = np.column_stack([x * self.width, rise * self.height])
        outline = np.concatenate([outline, [(1.1 * self.width, 2 * self.height), (-0.1 * self.width, 2 * self.height)]])
        self.fill(outline, _colour(rng, 0.03, 0.4), IGNORED)

    # --- what stands on the street ----------------------------------------------------------------------------------

    def things(self, road: tuple[float, float], walls: tuple[float, float]) -> list[tuple[float, Callable]]:
        """Depths, and what draws the thing there."""
        rng = self.rng
        things: list[tuple[float, Callable]] = []

        def add(z: float, draw: Callable, *arguments: float) -> None:
            things.append((z, lambda depth: draw(*arguments, depth)))

        for side, sign in enumerate((-1, 1)):
            kerb, wall = road[side] + 0.5 * sign, walls[side]
            for z in np.arange(rng.uniform(5, 20), 80, rng.uniform(14, 24)):
                add(z, self.lamp_post, kerb, -sign)
            for z in rng.uniform(6, 60, rng.integers(0, 7)):
                add(z, self.tree, kerb + rng.uniform(0.1, 0.9) * (wall - kerb))
            for z in rng.uniform(4, 30, rng.integers(0, 4)):
                add(z, self.bush, wall - sign * rng.uniform(0, 0.8))
            for z in rng.uniform(5, 18, rng.integers(0, 3)):
                add(z, self.sign_post, kerb + sign * rng.uniform(0, 0.6))
            for z in rng.uniform(5, 16, rng.integers(0, 2)):
                add(z, self.traffic_light, kerb)
            for z in np.exp(rng.uniform(np.log(4), np.log(25), rng.integers(2, 7))):
                add(z, self.person, kerb + rng.uniform(0, 0.9) * (wall - kerb))
            for z in rng.uniform(5, 20, rng.integers(0, 2)):
                add(z, self.bin, kerb + 0.6 * (wall - kerb))
            if rng.random() < 0.5:
                for z in np.arange(rng.uniform(4, 10), 60, 6.5):
                    if rng.random() < 0.6:
                        add(z, self.car, road[side] - 1.1 * sign, 0)
        if rng.random() < 0.6:
            add(rng.uniform(9, 35), self.car, rng.uniform(-0.4, 0.4), -1)
        for z in np.arange(rng.uniform(8, 30), 80, rng.uniform(12, 30)):
            if rng.random() < 0.6:
                add(z, self.car, max(-3.4, road[0] + 1) + rng.uniform(-0.3, 0.3), 1)
        if rng.random() < 0.3:
            for z in rng.uniform(6, 18, rng.integers(1, 4)):
                add(z, self.person, rng.uniform(*road))
        return things

    def figure(
        self, x: float, z: float, outline: np.ndarray, surface: np.ndarray, label: int, light: np.ndarray | None = None
    ) -> None:
        self.fill(self.upright(x, z, outline), surface, label, light)

    def crown(self, x: float, z: float, y: float, tall: float, wide: float) -> None:
        """Leaves around a height y, which reach so far up and to the sides."""
        rng = self.rng
        colour = _colour(rng, 0.12, 0.4, 0.12) * np.array([0.75, 1.1, 0.85], np.float32)
        leaves = self.texture('leaves', rng)
        lumps = rng.integers(6, 11)
        for up in np.sort(rng.uniform(-0.8, 0.8, lumps)):
            side = rng.uniform(-1, 1) * np.sqrt(1 - up**2) * 0.8
            lump = _disc(rng.uniform(0.35, 0.6), rng, 40) + (side, up)
            lit = rng.uniform(0.6, 1.1) * (1 + 0.3 * up)
            self.figure(x, z, lump * (wide, tall) + (0, y), leaves * colour * lit, VEGETATION)

    def tree(self, x: float, z: float) -> None:
        rng = self.rng
        y, tall = rng.uniform(3.2, 5.5), rng.uniform(1.4, 2.6)
        bark = self.texture('leaves', rng) * _colour(rng, 0.1, 0.3)
        self.figure(x, z, _limb((0, 0), (rng.uniform(-0.3, 0.3), y), rng.uniform(0.2, 0.45), 0.15), bark, VEGETATION)
        self.crown(x, z, y, tall, rng.uniform(1, 2.2))

    def bush(self, x: float, z: float) -> None:
        tall = self.rng.uniform(0.4, 0.9)
        self.crown(x, z, 0.7 * tall, tall, self.rng.uniform(0.6, 1.6))

    def lamp_post(self, x: float, inwards: int, z: float) -> None:
        rng = self.rng
        metal, tall, arm = _colour(rng, 0.15, 0.55), rng.uniform(5, 8), inwards * rng.uniform(0.3, 1.8)
        self.figure(x, z, _limb((0, 0), (0, tall), 0.2, 0.13), metal, POLE)
        self.figure(x, z, _limb((0, tall), (arm, tall + 0.3), 0.13, 0.1), metal, POLE)
        head = _limb((arm, tall + 0.25), (arm + 0.5 * inwards, tall + 0.25), 0.25, 0.25)
        self.figure(x, z, head, metal, POLE, WARM if rng.random() < 0.7 else None)

    def sign_post(self, x: float, z: float) -> None:
        rng = self.rng
        tall, size = rng.uniform(2, 3), rng.uniform(0.4, 0.6)
        self.figure(x, z, _limb((0, 0), (0, tall), 0.1, 0.1), _colour(rng, 0.25, 0.6, 0.03), POLE)
        border, field = rng.permutation([_colour(rng, 0.6, 0.9, 0.03), _colour(rng, 0.5, 0.9, 0.6)])
        plate = _disc(size, corners=rng.choice([3, 4, 8, 24])) * (1, rng.choice([-1, 1]))
        self.figure(x, z, plate + (0, tall), border, TRAFFIC_SIGN)
        self.figure(x, z, 0.75 * plate + (0, tall), field, TRAFFIC_SIGN)
        if rng.random() < 0.7:
            bar = _limb((-0.4 * size, tall), (0.4 * size, tall), 0.15 * size, 0.15 * size)
            self.figure(x, z, bar, border, TRAFFIC_SIGN)

    def traffic_light(self, x: float, z: float) -> None:
        rng = self.rng
        bottom, metal = rng.uniform(2.1, 2.8), _colour(rng, 0.2, 0.5, 0.03)
        self.figure(x, z, _limb((0, 0), (0, bottom + 0.5), 0.14, 0.12), metal, POLE)
        self.figure(x, z, _box(-0.2, 0.2, bottom, bottom + 1.05), _colour(rng, 0.03, 0.3), TRAFFIC_LIGHT)
        on = rng.integers(3)
        for place, colour in enumerate((GREEN, AMBER, RED)):
            lens = _disc(0.13) + (0, bottom + 0.2 + 0.32 * place)
            self.figure(x, z, lens, 0.3 * colour, TRAFFIC_LIGHT, colour if place == on else None)

    def bin(self, x: float, z: float) -> None:
        """A litter bin, one of the things that Cityscapes has no id for."""
        wide, tall = self.rng.uniform(0.2, 0.4), self.rng.uniform(0.7, 1.2)
        self.figure(x, z, _box(-wide, wide, 0, tall), _colour(self.rng, 0.1, 0.5, 0.3), IGNORED)

    def person(self, x: float, z: float) -> None:
        rng = self.rng
        tall, stride, look = rng.uniform(1.5, 1.9), rng.uniform(0, 0.16), rng.choice([-1, 1])

        def cloth() -> np.ndarray:
            return self.texture('cloth', rng) * _colour(rng, 0.08, 0.6, 0.25)

        skin = rng.uniform(0.35, 0.85) * np.array([0.65, 0.8, 1], np.float32)
        trousers, jacket = cloth(), cloth()
        swing = rng.uniform(-0.08, 0.14)
        parts = [
            (_limb((-0.05, 0.5), (-0.05 - stride, 0.02), 0.12, 0.06), trousers),
            (_limb((0.05, 0.5), (0.05 + stride * rng.uniform(0.4, 1), 0.02), 0.12, 0.06), trousers),
            (_limb((-0.1, 0.8), (-0.12 - swing, 0.47), 0.07, 0.05), jacket),
            (_limb((0, 0.76), (0, 0.53), 0.25, 0.2), jacket),
            (_limb((0.1, 0.8), (0.12 + swing, 0.47), 0.07, 0.05), jacket * 0.9),
            (_disc(0.07) * (0.85, 1) + (0, 0.935), _colour(rng, 0.03, 0.35)),
        ]
        for outline, surface in parts:
            self.figure(x, z, outline * (look * tall, tall), surface, PERSON)
        if rng.random() < 0.6:  # towards the camera
            head = _disc(1) * (0.05, 0.06) * tall + (0, 0.93 * tall)
            self.figure(x, z, head, self.face(rng), PERSON)
        elif rng.random() < 0.5:
            self.figure(x, z, (_disc(0.05) + (0.02, 0.925)) * (look * tall, tall), skin, PERSON)

    def car(self, x: float, lamps: int, z: float) -> None:
        """A car, with its near end at z; lamps are -1 for a red pair on, 1 for headlights and 0 for none."""
        rng = self.rng
        wide, long = rng.uniform(0.8, 0.95), rng.uniform(3.6, 4.6)  # half the width, all the length
        belt, roof = rng.uniform(0.8, 0.95), rng.uniform(1.35, 1.9)
        nose, tail = rng.uniform(0.1, 1.1), rng.uniform(0.1, 0.8)
        paint, glass = _colour(rng, 0.06, 0.75, 0.3), _colour(rng, 0.04, 0.2)
        flank = x - wide * np.sign(x)

        def face(points: np.ndarray, colour: np.ndarray, light: np.ndarray | None = None) -> None:
            self.fill(self.project(points), colour, CAR, light)

        def side(figure: np.ndarray) -> np.ndarray:
            return np.array([(flank, v, z + u) for u, v in figure])

        def across(figure: np.ndarray, *depths: float) -> np.ndarray:
            return np.array([(x + u, v, z + w) for (u, v), w in zip(figure, depths or (0,) * len(figure), strict=True)])

        def inner(points: np.ndarray) -> np.ndarray:
            return points.mean(axis=0) + 0.8 * (points - points.mean(axis=0))

        face(across(_box(-wide, wide, 0, 0.3)), 0.03 * WHITE)  # its shadow, and the tyres
        face(across(_box(-wide, wide, belt, belt), long, long, 0, 0), 1.1 * paint)
        face(side(_box(0, long, 0.25, belt)), 0.75 * paint)
        cabin = side([(nose + 0.5, roof), (long - tail - 0.3, roof), (long - tail, belt), (nose, belt)])
        face(cabin, 0.7 * paint)
        face(inner(cabin), glass)
        for axle in (0.75, long - 0.75):
            face(side(_disc(0.32) + (axle, 0.32)), 0.03 * WHITE)
            face(side(_disc(0.18) + (axle, 0.32)), _colour(rng, 0.2, 0.6, 0.03))
        screen = across(_box(-0.8 * wide, 0.8 * wide, belt, roof), nose + 0.5, nose + 0.5, nose, nose)
        face(screen, paint)
        face(inner(screen), 1.3 * glass)
        face(across(_box(-wide, wide, 0.25, belt)), 0.9 * paint)
        face(across(_box(-0.9 * wide, 0.9 * wide, 0.27, 0.4)), 0.05 * WHITE)
        face(across(_box(-0.25, 0.25, 0.42, 0.53)), _colour(rng, 0.4, 0.8, 0.03))
        lamp, shine = (WHITE * 0.8, WARM * 0.6 + 0.4) if lamps > 0 else (RED * 0.6, RED * 0.9)
        for centre in (-wide + 0.17, wide - 0.17):
            place = _box(centre - 0.14, centre + 0.14, belt - 0.28, belt - 0.1)
            face(across(place), lamp, shine if lamps else None)
