"""Maker's integer maths, pure: spot and feed prices, stability fee, what a bark needs. Rounding as in the dss sources."""

from indexer.model import RAY, WAD

UINT256 = 2**256


def rmul(x: int, y: int) -> int:
    """Product of two rays, rounded down (dss Jug.rmul)."""
    return x * y // RAY


def rdiv(x: int, y: int) -> int:
    """Quotient of two rays, rounded down (dss Spotter.rdiv)."""
    return x * RAY // y


def rpow(x: int, n: int) -> int:
    """x**n in rays, each step rounded half up (dss Jug.rpow); OverflowError where the contract reverts."""
    if x == 0:
        return 0 if n else RAY
    z = x if n % 2 else RAY
    n //= 2
    while n:
        x = half_up(x * x)
        if n % 2:
            z = half_up(z * x)
        n //= 2
    return z


def half_up(product: int) -> int:
    """A product of two rays as a ray (dss Jug.rpow, each step); OverflowError where uint256 does not hold it."""
    if product + RAY // 2 >= UINT256:
        raise OverflowError("rpow")
    return (product + RAY // 2) // RAY


def spot_of(feed: int, par: int, mat: int) -> int:
    """Vat spot (ray) that Spotter.poke sets from a feed value (wad); 0 without a feed or a ratio."""
    return rdiv(rdiv(feed * 10**9, par), mat) if mat and par else 0


def feed_of(spot: int, par: int, mat: int) -> int:
    """The lowest feed value (wad) at which Spotter.poke sets at least this spot.

    It is exactly the value of the last poke while mat and par are those of that poke.
    """
    return _ceil(_ceil(spot * mat, RAY) * par, 10**9 * RAY)


def _ceil(x: int, y: int) -> int:
    return -(-x // y)


def fee_rate(base: int, duty: int) -> float | None:
    """Stability fee a year as a fraction, from the Jug's per-second factor; None for an ilk the Jug does not know."""
    try:
        return ((base + duty) / RAY) ** 31_536_000 - 1 if duty else None
    except OverflowError:
        return None  # no fee anybody could pay


def bark_refused(ink: int, art: int, rate: int, dust: int, *, room: int, chop: int) -> str | None:
    """Why Dog.bark would refuse an unsafe urn despite enough room, None if it would not."""
    return barked(ink, art, rate, dust, room=room, chop=chop)[1]


def barked(ink: int, art: int, rate: int, dust: int, *, room: int, chop: int) -> tuple[int, str | None]:
    """The normalised debt that Dog.bark takes from an unsafe urn, and why it would refuse despite enough room.

    `room` (rad) is what is left under Hole and hole, `chop` (wad) the penalty.
    """
    dart = min(art, room * WAD // rate // chop) if chop else 0
    if art > dart:
        if (art - dart) * rate < dust:
            dart = art
        elif dart * rate < dust:
            return 0, "dusty-auction"
    return (dart, None) if ink * dart // art else (0, "null-auction")


def bitten(ink: int, art: int, rate: int, *, room: int, chop: int) -> tuple[int, str | None]:
    """The normalised debt that Cat.bite takes from an unsafe urn, and why it would refuse; it may leave dust.

    `room` (rad) is the lesser of the ilk's dunk and what is left in the box.
    """
    dart = min(art, room * WAD // rate // chop) if chop else 0
    return (dart, None) if dart and ink * dart // art else (0, "null-auction")


def ilk_name(raw: bytes) -> str:
    """A bytes32 ilk as text ("ETH-A"), or as 0x hex if it is not printable ASCII padded with zeros."""
    text = raw.rstrip(b"\0")
    if text and all(32 <= byte < 127 for byte in text):
        return text.decode("ascii")
    return "0x" + raw.hex()


def ilk_bytes(name: str) -> bytes:
    """The bytes32 of an ilk's name; the inverse of `ilk_name`."""
    if len(name) == 66 and name.startswith("0x"):
        return bytes.fromhex(name[2:])
    return name.encode("ascii").ljust(32, b"\0")
