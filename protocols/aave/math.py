"""Integer maths shared by Aave V2 and V3: rays, percentages, interest. Every division names its rounding."""

RAY = 10**27
HALF_RAY = RAY // 2
WAD = 10**18
PERCENTAGE_FACTOR = 10_000
SECONDS_PER_YEAR = 31_536_000


def ray_mul(a: int, b: int) -> int:
    """WadRayMath.rayMul: half up."""
    return (a * b + HALF_RAY) // RAY


def ray_div(a: int, b: int) -> int:
    """WadRayMath.rayDiv: half up."""
    return (a * RAY + b // 2) // b


def wad_div(a: int, b: int) -> int:
    """WadRayMath.wadDiv: half up."""
    return (a * WAD + b // 2) // b


def percent_mul(value: int, percentage: int) -> int:
    """PercentageMath.percentMul: half up; `percentage` in basis points."""
    return (value * percentage + PERCENTAGE_FACTOR // 2) // PERCENTAGE_FACTOR


def percent_div(value: int, percentage: int) -> int:
    """PercentageMath.percentDiv: half up; `percentage` in basis points."""
    return (value * PERCENTAGE_FACTOR + percentage // 2) // percentage


def linear_interest(rate: int, seconds: int) -> int:
    """MathUtils.calculateLinearInterest, all versions: yearly ray rate to a growth factor in ray, down."""
    return RAY + rate * seconds // SECONDS_PER_YEAR


def compound_v2(rate: int, seconds: int) -> int:
    """MathUtils.calculateCompoundedInterest of Aave V2: the rate per second is rounded down first."""
    if seconds == 0:
        return RAY
    per_second = rate // SECONDS_PER_YEAR
    power_two = ray_mul(per_second, per_second)
    power_three = ray_mul(power_two, per_second)
    second = seconds * (seconds - 1) * power_two // 2
    third = seconds * (seconds - 1) * max(seconds - 2, 0) * power_three // 6
    return RAY + per_second * seconds + second + third


def compound_v30(rate: int, seconds: int) -> int:
    """MathUtils.calculateCompoundedInterest of Aave V3.0 to 3.3: powers are divided by the year before they grow."""
    if seconds == 0:
        return RAY
    power_two = ray_mul(rate, rate) // (SECONDS_PER_YEAR * SECONDS_PER_YEAR)
    power_three = ray_mul(power_two, rate) // SECONDS_PER_YEAR
    second = seconds * (seconds - 1) * power_two // 2
    third = seconds * (seconds - 1) * max(seconds - 2, 0) * power_three // 6
    return RAY + rate * seconds // SECONDS_PER_YEAR + second + third


def compound_v34(rate: int, seconds: int) -> int:
    """MathUtils.calculateCompoundedInterest of Aave V3.4 on: x + x^2/2 + x^3/6 in rays, x = rate * time."""
    x = rate * seconds // SECONDS_PER_YEAR
    return RAY + x + ray_mul(x, x // 2 + ray_mul(x, x // 6))


def discounted_debt(scaled: int, index: int, previous_index: int, discount_percent: int) -> int:
    """GhoVariableDebtToken.balanceOf (before V3.4): part of the interest since the holder's last action is waived."""
    balance = ray_mul(scaled, index)
    if index == previous_index or discount_percent == 0:
        return balance
    return balance - percent_mul(balance - ray_mul(scaled, previous_index), discount_percent)
