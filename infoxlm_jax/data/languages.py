"""Language tags: their parts, and the scripts that a language is written in.

A tag is one of BCP 47 (en, pt-BR, zh-Hant-TW, es-419, x-klingon), with "_" for
"-" and in any case, or a locale of POSIX (ca@valencia, sr@latin). CC-100 writes
romanised text as hi_rom, and Burmese in another encoding as my_zaw.
"""

import functools
import re
from typing import NamedTuple

import regex

# Languages of each Unicode script (CLDR's main languages, and others that are
# written much). A language that is missing here is not judged.
_LANGUAGES = {
  "Latin": "af az br bs ca cs cy da de en eo es et eu fi fil fr fy ga gd gl ha"
  " hr ht hu id ig is it jv kk ku la lb lt lv mg ms mt nb nl nn no om pl pt rm"
  " ro sk sl so sq sr su sv sw tl tr uz vi wo xh yo zu",
  "Arabic": "ar ckb fa ha kk ku ky pa ps sd ug ur",
  "Cyrillic": "az ba be bg bs kk ky mk mn ru sr tg tt uk uz",
  "Devanagari": "bho hi mr ne sa sd",
  "Armenian": "hy",
  "Bengali": "as bn",
  "Bopomofo": "zh",
  "Ethiopic": "am ti",
  "Georgian": "ka",
  "Greek": "el",
  "Gujarati": "gu",
  "Gurmukhi": "pa",
  "Han": "ja ko yue zh",
  "Hangul": "ko",
  "Hebrew": "he yi",
  "Hiragana": "ja",
  "Kannada": "kn",
  "Katakana": "ja",
  "Khmer": "km",
  "Lao": "lo",
  "Malayalam": "ml",
  "Mongolian": "mn",
  "Myanmar": "my",
  "Oriya": "or",
  "Sinhala": "si",
  "Tamil": "ta",
  "Telugu": "te",
  "Thaana": "dv",
  "Thai": "th",
  "Tibetan": "bo dz",
}
# ISO 15924 codes of several of Unicode's scripts, or of a part of one.
_SCRIPT_CODES = {
  "Hans": ("Han", "Bopomofo"),
  "Hant": ("Han", "Bopomofo"),
  "Jpan": ("Han", "Hiragana", "Katakana"),
  "Kore": ("Hangul", "Han"),
}
# Scripts of a language in a country, besides those that it has elsewhere.
_COUNTRIES = {
  "az_IQ": "Arabic",
  "az_IR": "Arabic",
  "bm_ML": "Nko",
  "kk_AF": "Arabic",
  "kk_CN": "Arabic",
  "kk_IR": "Arabic",
  "kk_MN": "Arabic",
  "ko_CN": "Han",
  "ms_BN": "Arabic",
  "ms_CC": "Arabic",
  "mn_CN": "Mongolian",
  "pa_PK": "Arabic",
  "ro_MD": "Cyrillic",
  "sd_IN": "Devanagari",
  "sr_ME": "Latin",
  "tg_PK": "Arabic",
  "tr_BG": "Cyrillic",
  "ug_KZ": "Cyrillic",
  "ug_MN": "Cyrillic",
  "uz_AF": "Arabic",
  "uz_CN": "Cyrillic",
  "vi_CN": "Han",
}
# Words after a language that name a script, ISO 15924's code.
_SCRIPT_WORDS = {
  "arabic": "Arab",
  "cyrillic": "Cyrl",
  "devanagari": "Deva",
  "hebrew": "Hebr",
  "ijekavianlatin": "Latn",
  "iqtelif": "Latn",
  "latin": "Latn",
  "rom": "Latn",
  "shaw": "Shaw",
  "zaw": "Mymr",
}
# Registered variants that names of files have.
_VARIANTS = frozenset(
  "1901 1996 abl1943 ao1990 arevela arevmda baku1926 ekavsk ijekavsk monoton"
  " pinyin polyton rozaj scouse tarask valencia wadegile".split()
)
# Tags with a country in small letters after "-", which are no pair in a pair.
_REGIONAL = frozenset(
  "de-at de-ch en-au en-gb en-us es-es es-mx fr-ch fr-fr nl-nl pt-br pt-pt"
  " zh-cn zh-hk zh-sg zh-tw".split()
)

_TAG = re.compile(
  r"(?P<language>[A-Za-z]{2,3})(?P<rest>(?:[-_][A-Za-z0-9]{1,8})*)"
  r"(?:@(?P<modifier>[A-Za-z0-9]{1,20}))?"
)
_PRIVATE = re.compile(r"[xX](?:-[A-Za-z0-9]{1,8})+")
# Words of three letters in the names of files that are no language, and no
# dialect.
WORDS = frozenset("all bpe dev doc eng new out raw set spm src tgt tok".split())


class Tag(NamedTuple):
  """The parts of a tag.

  Attributes:
    language: in small letters; a whole tag for private use, x-...
    script: ISO 15924's code, such as Latn, or "".
    region: in capital letters, three digits, or "".
    others: variants, extensions and words that are none of BCP 47's.
  """

  language: str
  script: str = ""
  region: str = ""
  others: tuple[str, ...] = ()

  def __str__(self) -> str:
    """The tag in BCP 47's usual case."""
    parts = (self.language, self.script, self.region, *self.others)
    return "-".join(filter(None, parts))

  def covers(self, other: "Tag") -> bool:
    """Whether `other` is this tag or a more special one (RFC 4647, 3.3.1)."""
    return f"{other}-".startswith(f"{self}-")


@functools.lru_cache(1024)
def parse(tag: str) -> Tag | None:
  """The parts of a tag; None where it cannot be one.

  >>> str(parse("zh_hant_tw")), str(parse("sr@latin")), str(parse("hi_rom"))
  ('zh-Hant-TW', 'sr-Latn', 'hi-Latn')
  """
  if _PRIVATE.fullmatch(tag):
    return Tag(tag.lower())
  match = _TAG.fullmatch(tag)
  if match is None:
    return None
  script = region = ""
  others: list[str] = []
  for part in filter(None, re.split("[-_]", match["rest"])):
    word = part.lower()
    if others:  # a subtag after a variant is one, too
      others.append(word)
    elif word in _SCRIPT_WORDS and not script:
      script = _SCRIPT_WORDS[word]
    elif len(part) == 4 and part.isalpha() and not script and not region:
      script = part.title()
    elif re.fullmatch("[A-Za-z]{2}|[0-9]{3}", part) and not region:
      region = part.upper()
    else:
      others.append(word)
  if modifier := (match["modifier"] or "").lower():
    if modifier in _SCRIPT_WORDS and not script:
      script = _SCRIPT_WORDS[modifier]
    else:
      others.append(modifier)
  return Tag(match["language"].lower(), script, region, tuple(others))


def is_language(tag: str) -> bool:
  """Whether prepared data may have a tag: its language is in small letters.

  >>> is_language("pt-BR"), is_language("ca@valencia"), is_language("German")
  (True, True, False)
  """
  parsed = parse(tag)
  return parsed is not None and tag.startswith(parsed.language)


def same(a: str, b: str) -> bool:
  """Whether two tags are one, in different letters: zh_hant and zh-Hant."""
  parsed = parse(a)
  return a == b or (parsed is not None and parsed == parse(b))


def is_named(word: str) -> bool:
  """Whether a word in a file's name is a language: de, zh_hans, ca@valencia.

  The name has other words, too, so that each part must be one that is known: a
  script of Unicode, a country in capital letters or after "_", three digits, a
  registered variant, CC-100's "rom" or "zaw", or another word of three letters
  after "_", for a dialect.
  """
  match = _TAG.fullmatch(word)
  if match is None or match["language"] != match["language"].lower():
    return False
  return all(
    _is_known(separator, part)
    for separator, part in re.findall("([-_])([A-Za-z0-9]+)", match["rest"])
  )


def _is_known(separator: str, part: str) -> bool:
  small = part == part.lower()
  if len(part) == 4 and part.isalpha():
    return bool(_unicode_scripts(part.title()))
  if part.isdigit():
    return len(part) == 3
  if len(part) == 2:
    return part.isalpha() and (part.isupper() or (small and separator == "_"))
  if len(part) == 3 and separator == "_":
    return small and part.isalpha() and part not in WORDS
  return part.lower() in _VARIANTS


def pair_in(word: str) -> tuple[str, str] | None:
  """The two languages of a word such as en-fr, en-pt-BR or pt-br-en.

  The second begins after a dash. None where none of the dashes, or several,
  divide two languages.
  """
  found = [
    (word[:place], word[place + 1 :])
    for place, letter in enumerate(word)
    if letter == "-"
    and all(
      is_named(side) or side in _REGIONAL
      for side in (word[:place], word[place + 1 :])
    )
  ]
  return found[0] if len(found) == 1 else None


@functools.cache
def scripts_of(language: str) -> tuple[str, ...]:
  """The scripts of a language, by Unicode's names; () where none is known.

  A script in the tag itself decides: "sr-Latn" and "hi_rom" are Latin only. A
  country may add one to those of the language: az_IR.
  """
  tag = parse(language)
  if tag is None:
    return ()
  if tag.script:
    return _unicode_scripts(tag.script)
  scripts = [
    s for s, names in _LANGUAGES.items() if tag.language in names.split()
  ]
  scripts.append(_COUNTRIES.get(f"{tag.language}_{tag.region}", ""))
  return tuple(dict.fromkeys(filter(None, scripts)))


@functools.cache
def _unicode_scripts(code: str) -> tuple[str, ...]:
  """Unicode's scripts of an ISO 15924 code; () for an unknown one."""
  if code in _SCRIPT_CODES:
    return _SCRIPT_CODES[code]
  try:
    regex.compile(rf"\p{{Script={code}}}")
  except regex.error:
    return ()
  return (code,)
