"""Addresses as people write them."""

import re


def checked_address(text: str) -> str:
    """The address in lower case. ValueError if it is not one, or if a mixed-case one fails its EIP-55 checksum."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{40}", text):
        raise ValueError(f"{text[:100]!r} is not an address (0x and 40 hex digits)")
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and checksummed(digits) != digits:
        raise ValueError(f"{text} fails its checksum (EIP-55), so a digit is wrong; copy it again, or use lower case")
    return "0x" + digits.lower()


def checksummed(digits: str) -> str:
    """The 40 hex digits of an address, capitalised as EIP-55 says."""
    from eth_hash.auto import keccak  # noqa: PLC0415 - its backend takes a while to import, and few addresses need it

    lower = digits.lower()
    marks = keccak(lower.encode()).hex()
    return "".join(digit.upper() if int(mark, 16) >= 8 else digit for digit, mark in zip(lower, marks, strict=False))
