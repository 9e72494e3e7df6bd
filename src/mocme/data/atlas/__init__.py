"""Atlas: countries, cities, languages, currencies and time zones of the world, as data files."""
