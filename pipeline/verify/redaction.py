"""Takes secrets out of what a failed check says, before it is written anywhere."""

import re

LONGEST = 2000
SECRETS = re.compile(
    r"""(?P<key>-----BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z0-9 ]*PRIVATE[ ]KEY-----|\Z))
    |(?P<hash>\$(?:[1567y]|2[aby]|gy|sha1|md5)\$[./A-Za-z0-9$,=]{8,})
    |(?P<token>\b(?:gh[pousr]_|xox[abp]-|glpat-|AKIA|ASIA)[A-Za-z0-9_-]{12,})
    |(?P<named>(?i:(?:pass(?:word|wd|phrase)?|secret(?:_?access)?(?:_?key)?|(?:session_?)?token|api_?key)
        ["']?\s*[=:]\s*["']?))(?P<value>[^\s"',;]{6,})
    |(?P<address>[a-z][a-z0-9+.-]*://[^\s/:@]+:)(?P<login>[^\s/@]+)@""",
    re.DOTALL | re.VERBOSE,
)


def redact(text: str) -> str:
    """Return the text with private keys, password hashes, tokens and named passwords replaced by what they are."""
    return SECRETS.sub(replacement, text)


def shorten(text: str) -> str:
    """Return the text, redacted, in at most 2000 characters."""
    clean = redact(text)
    return clean if len(clean) <= LONGEST else clean[: LONGEST - 2] + " …"


def replacement(match: re.Match[str]) -> str:
    """Return what stands in for a secret: its kind, and the text before it that names it."""
    for kind, name in (("key", "private key"), ("hash", "password hash"), ("token", "token")):
        if match[kind]:
            return f"«{name}»"
    if match["named"]:
        return f"{match['named']}«secret»"
    return f"{match['address']}«secret»@"
